"""Read statements on a tag by keys that are not trusted: for messages and histories.

No tag is believed by them. What they say, and the key that they name, are claims: whoever can write to the mirror can
write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.digest import Digest
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_statements import STATEMENTS_EXAMINED, STATEMENTS_KEPT, claimed_signer, list_statements
from pipeline.model.publication import RecordedStatement, TagStatement
from pipeline.oci import VerifyingKey


def claiming_key(
    repository: Repository,
    identity: str,
    tag: str,
    key: VerifyingKey,
    says: Callable[[TagStatement], bool] = lambda _: True,
) -> Digest | None:
    """Return the fingerprint that the newest statement by another key than `key` names.

    The newest for which `says` is true; unverified. None: there is no such statement. Raises as the repository does.
    """
    own = {each.fingerprint for each in key.each}
    listed = [one for one in list_statements(repository, identity, tag) if says(one.statement)]
    named = (claimed_signer(repository, one) for one in listed[:STATEMENTS_EXAMINED])
    return next((found for found in named if found is not None and found not in own), None)


def claimed_moves(
    repository: Repository,
    listed: Iterable[RecordedStatement],
    signed: Sequence[RecordedStatement],
    last: Digest | None,
    key: VerifyingKey,
) -> Mapping[Digest, Digest]:
    """Return the moves by other keys that lead to those that `key` signed.

    Record → fingerprint of the key that it names. `signed` are those among `listed`; `last` is the record of the last
    move. A signed statement names its predecessor by digest, so that what is found here was on the mirror when `key`
    signed. Others are passed over.
    """
    own, others = ({one.record: one for one in found} for found in (signed, listed))
    found: dict[Digest, Digest] = {}
    record = last
    while record is not None and len(found) < STATEMENTS_KEPT:
        one = own.get(record)
        if one is None:
            one = others.get(record)
            signer = claimed_signer(repository, one) if one is not None and not one.statement.renews else None
            if one is None or signer is None or signer in {each.fingerprint for each in key.each} or record in found:
                break
            found[record] = signer
        record = one.statement.previous
    return found
