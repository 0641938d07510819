"""Signed statements of where tags point (docs/decisions/0018).

They are sigstore bundles that refer to an anchor, a manifest that stands for one tag of one repository and is the same
for all who know both names. Nobody pulls it, and it has no tag: a registry with the referrers API shows nothing of it,
one without has one list of referrers for each.

A statement is read from its signed bytes. What its manifest's annotations repeat is for lists: who looks into them
without a key believes the mirror.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.digest import Digest, canonical_json
from pipeline.digest import identity as identity_of
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.protocol import Repository
from pipeline.model.manifests import Manifest
from pipeline.model.publication import (
    Move,
    MoveCause,
    RecordedStatement,
    TagStatement,
)
from pipeline.model.rules import MirrorRules
from pipeline.model.tag_chain import begins_where, newest_first
from pipeline.oci import (
    SigningKey,
    Statement,
    StatementSubject,
    VerifyingKey,
    bundle_layer,
    make_attestation,
    media_types,
    verify_bundle,
)
from pipeline.oci.artifacts import EMPTY_DATA, EMPTY_DESCRIPTOR
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.predicates import MOVE
from pipeline.store import Store

ANCHOR_TYPE = "application/vnd.relbuild.tag.v1+json"
"""The artifactType of the manifest that stands for a tag."""

STATEMENTS_KEPT = 1000
"""Moves of one tag that are kept: at 900 bytes each in a list of referrers, a quarter of what registries take."""

STATEMENTS_EXAMINED = 64
"""Statements that are verified to find the newest that hold: whoever can write to a mirror can add some that do not."""

STATEMENT_NUMBER_LIMIT = 10**12
"""A number that a list gives is not believed beyond this: it would leave no room to grow."""

STATEMENT_ATTEMPTS = 5
"""Attempts to list statements, of which one may be superseded meanwhile."""

MOVE_MILLISECONDS = 3_600_000
"""Milliseconds for which what was signed may be a publisher's who is still at it."""

MOVE_ANNOTATION_PREFIX = "org.relbuild.move."
"""Prefix of the annotations that describe a move."""

_NUMBER = re.compile(r"\d{1,13}")
"""Thirteen digits of milliseconds reach to the year 2286."""


@dataclass(frozen=True, slots=True)
class TagSigner:
    """A key that signs where tags point, and the clock and memory for that.

    `clock` gives seconds since the epoch; `validity` is in seconds; `memory` knows the highest number that was seen of
    a tag, whatever the mirror says by now.
    """

    key: SigningKey
    clock: Callable[[], float]
    validity: int = MirrorRules().validity
    memory: TagMemory | None = None

    @property
    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.clock() * 1000)

    def seen(self, repository: Repository, tag: str) -> int:
        """The highest number that was seen of a tag; 0 if none was."""
        return self.memory.seen(repository.url, tag) if self.memory else 0


@dataclass(frozen=True, slots=True)
class TagMemory:
    """The highest statement number that this store has seen of each tag of a mirror.

    Only signed numbers count. One that is lower later was replayed, with all that the mirror says of it.
    """

    store: Store

    def seen(self, url: str, tag: str) -> int:
        """The highest number of a tag of the repository at `url`; 0 if none was seen."""
        known = self.store.recall(_memory(url, tag))
        return known if isinstance(known, int) and not isinstance(known, bool) else 0

    def see(self, url: str, tag: str, number: int) -> None:
        """Remember a number, unless a higher one is known."""
        if number > self.seen(url, tag):
            self.store.remember(_memory(url, tag), number)


def _memory(url: str, tag: str) -> Digest:
    return identity_of("tag-number", 1, repository=url, tag=tag)


def anchor_manifest(identity: str, tag: str) -> Manifest:
    """The manifest that stands for a tag of the repository `identity`."""
    empty = descriptor_json(EMPTY_DESCRIPTOR)
    return Manifest(
        media_types.MANIFEST,
        canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_types.MANIFEST,
                "artifactType": ANCHOR_TYPE,
                "config": empty,
                "layers": [empty],
                "annotations": {"org.relbuild.tag.repository": identity, "org.relbuild.tag.name": tag},
            }
        ),
    )


# --- reading -------------------------------------------------------------------------------------------


def list_statements(repository: Repository, identity: str, tag: str) -> tuple[RecordedStatement, ...]:
    """List the statements on a tag that the mirror has, newest first; none of them is verified."""
    found = []
    for referrer in repository.referrers(anchor_manifest(identity, tag).digest):
        said = listed_statement(referrer.annotation, identity)
        if said is not None and said.move.tag == tag:
            found.append(RecordedStatement(referrer.descriptor.digest, said))
    return newest_first(found)


def listed_statement(note: Callable[[str], str], identity: str = "") -> TagStatement | None:
    """Read the statement of a move in a manifest's annotations; None if none can be read."""

    def said(name: str) -> str:
        return note(MOVE_ANNOTATION_PREFIX + name)

    values = {name: said(name) for name in _TEXTS} | {name: said(name) for name in _NUMBERS}
    try:
        return _statement({**values, "repository": identity})
    except VerificationError:
        return None


def recent_statements(
    repository: Repository, identity: str, tag: str, key: VerifyingKey
) -> tuple[RecordedStatement, ...]:
    """The statements on a tag signed by `key`, from the newest on to the newest renewal.

    A renewal settles what came before it; the moves that began where it says are among them.

    Raises VerificationError as the repository does; what does not hold is passed over.
    """
    for _ in range(STATEMENT_ATTEMPTS):
        found: list[RecordedStatement] = []
        listed = list_statements(repository, identity, tag)
        superseded = False
        for one in listed[:STATEMENTS_EXAMINED]:
            older = any(other.statement.renews and other.statement.number > one.statement.number for other in found)
            if older and not begins_where(one, found):
                continue
            manifest = repository.manifest(one.record)
            superseded = superseded or manifest is None
            if manifest is not None and _holds(repository, manifest, one, key):
                found.append(one)
        if not superseded or found:
            break
    return tuple(found)


def find_statement(
    repository: Repository, identity: str, tag: str, record: Digest, key: VerifyingKey
) -> RecordedStatement | None:
    """The statement with a record, if `key` signed it."""
    one = next((one for one in list_statements(repository, identity, tag) if one.record == record), None)
    manifest = repository.manifest(record) if one is not None else None
    return one if one is not None and manifest is not None and _holds(repository, manifest, one, key) else None


def signed_statements(
    repository: Repository, identity: str, tag: str, key: VerifyingKey
) -> tuple[RecordedStatement, ...]:
    """All that `key` signed of a tag, the newest first."""
    found = []
    for one in list_statements(repository, identity, tag):
        manifest = repository.manifest(one.record)
        if manifest is not None and _holds(repository, manifest, one, key):
            found.append(one)
    return tuple(found)


def _holds(repository: Repository, manifest: Manifest, listed: RecordedStatement, key: VerifyingKey) -> bool:
    """Did `key` sign what is listed?"""
    subject = anchor_manifest(listed.statement.repository, listed.statement.move.tag).digest
    try:
        bundle = repository.read_blob(bundle_layer(manifest))
        signed = verify_bundle(manifest, bundle, subject, key)
        return signed.predicate_type == MOVE and _predicate(signed.predicate) == listed.statement
    except VerificationError:
        return False


# --- the form ------------------------------------------------------------------------------------------

_TEXTS = ("tag", "to", "from", "previous", "why", "version")
_NUMBERS = ("number", "at", "until")


def _values(said: TagStatement) -> dict[str, str]:
    move = said.move
    values = {
        "tag": move.tag,
        "to": str(move.after),
        "from": str(move.before) if move.before else "",
        "previous": str(said.previous) if said.previous else "",
        "why": str(move.why),
        "version": move.version,
        "number": str(said.number),
        "at": str(move.at),
        "until": str(said.until),
    }
    return {name: value for name, value in values.items() if value}


def _predicate(data: bytes) -> TagStatement:
    """Raises VerificationError `move-malformed`."""
    document = JsonReader.parse(data, "move")
    names = ("repository", *_TEXTS, *_NUMBERS)
    return _statement({name: document.get(name).text("") for name in names})


def _statement(said: Mapping[str, str]) -> TagStatement:
    """Raises VerificationError `move-malformed`, `digest-malformed`."""
    wrong = next((name for name in _NUMBERS if not _NUMBER.fullmatch(said[name])), None)
    if (
        wrong is not None
        or said["why"] not in set(MoveCause)
        or not said["tag"]
        or not 0 < int(said["number"]) <= STATEMENT_NUMBER_LIMIT
    ):
        raise VerificationError("move-malformed", f"invalid statement of a tag's target: {dict(said)!r:.200}")
    move = Move(
        said["tag"],
        Digest.parse(said["from"]) if said["from"] else None,
        Digest.parse(said["to"]),
        int(said["at"]),
        MoveCause(said["why"]),
        said["version"],
    )
    previous = Digest.parse(said["previous"]) if said["previous"] else None
    return TagStatement(said["repository"], move, int(said["number"]), previous, int(said["until"]))


# --- writing -------------------------------------------------------------------------------------------


def write_statement(repository: Repository, said: TagStatement, key: SigningKey) -> RecordedStatement:
    """Sign a statement and list it among those of its tag. Raises as the repository does."""
    subject = anchor_manifest(said.repository, said.move.tag)
    values = _values(said)
    signed = Statement(
        MOVE,
        (StatementSubject(subject.digest, f"{said.repository}:{said.move.tag}"),),
        canonical_json({**values, "repository": said.repository}),
    )
    notes = {MOVE_ANNOTATION_PREFIX + name: value for name, value in values.items()}
    artifact = make_attestation(signed, subject.descriptor, key, annotations=notes)
    repository.put_blob(EMPTY_DESCRIPTOR, EMPTY_DATA)
    repository.put_manifest(subject)
    for descriptor, content in artifact.blobs:
        repository.put_blob(descriptor, content)
    repository.attach(artifact.manifest)
    return RecordedStatement(artifact.manifest.digest, said)


def tidy_statements(repository: Repository, newest: TagStatement, key: VerifyingKey, now: int) -> None:
    """Remove what `key` signed of a tag and is not needed besides `newest`, which holds.

    The tag is that of `newest`. Removed are renewals that it supersedes, and the oldest moves beyond `STATEMENTS_KEPT`.
    What is younger than `MOVE_MILLISECONDS` at `now` (milliseconds) is left: whoever wrote it may still look whether it
    is listed. A registry that deletes nothing keeps all of it: it does no harm.
    """
    listed = list_statements(repository, newest.repository, newest.move.tag)
    with contextlib.suppress(EnvironmentLacking):
        for one in _superseded(listed, newest.number):
            manifest = repository.manifest(one.record) if now - one.statement.move.at >= MOVE_MILLISECONDS else None
            if manifest is not None and _holds(repository, manifest, one, key):
                repository.remove_referrer(one.record)


def _superseded(listed: Sequence[RecordedStatement], newest: int) -> Iterator[RecordedStatement]:
    yield from (one for one in listed if one.statement.renews and one.statement.number < newest)
    yield from [one for one in listed if not one.statement.renews][STATEMENTS_KEPT:]
