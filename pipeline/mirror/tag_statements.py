"""List, verify, write and remove signed statements on tags' targets (docs/decisions/0018).

A statement is a sigstore bundle that refers to an anchor: an untagged manifest that stands for one tag of one
repository and is computed from their names. A registry with the referrers API lists no tag for it; one without has one
referrers index for each anchor.

Its manifest's annotations repeat a statement for listing, with its signature. From both, the bundle and its manifest
are made again: if the manifest's digest is the one that is listed, that is what it says, and `key` signed it. So what
others have put there costs no request, and a bundle that is lost makes nobody disbelieve a tag. A statement that an
earlier version wrote, without a signature in the list, is read from its bundle.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_memory import TagMemory
from pipeline.model.manifests import Artifact, Manifest
from pipeline.model.publication import (
    Move,
    MoveCause,
    RecordedStatement,
    TagStatement,
)
from pipeline.model.rules import MirrorRules
from pipeline.model.tag_chain import AT_ONCE, begins_where, newest_first
from pipeline.oci import (
    SigningKey,
    Statement,
    StatementSubject,
    VerifyingKey,
    bundle_layer,
    make_attestation,
    media_types,
    named_key,
    remade_attestation,
    unverified_statement,
    verify_bundle,
)
from pipeline.oci.artifacts import EMPTY_DATA, EMPTY_DESCRIPTOR, read_artifact
from pipeline.oci.image_manifest import JsonReader, descriptor_json
from pipeline.oci.predicates import MOVE

ANCHOR_TYPE = "application/vnd.relbuild.tag.v1+json"
"""The artifactType of a tag's anchor manifest."""

STATEMENTS_KEPT = 1000
"""Moves of one tag that are kept: at 900 bytes each in a referrers index, a quarter of what registries accept."""

STATEMENTS_EXAMINED = 64
"""Statements without a signature in the list, as earlier versions wrote them, that are read to find the newest valid
ones: whoever can write to a mirror can add others. Also valid ones that are returned: copies of one can be listed."""

STATEMENT_NUMBER_LIMIT = 10**12
"""Highest statement number that is accepted: a higher one would leave no room to grow."""

ROOM = STATEMENT_NUMBER_LIMIT // 2
"""Numbers above it count only where the own key signed them, so that there is room to grow."""

STATEMENT_SIZE_LIMIT = 64 << 10
"""Bytes of a statement's bundle: it has some 2 KiB. Whoever can write to a mirror can list any blob as one."""

STATEMENT_ATTEMPTS = 5
"""Attempts to list and read statements, which may be removed meanwhile."""

MOVE_ANNOTATION_PREFIX = "org.relbuild.move."
"""Prefix of the annotations that describe a move."""

_SIGNATURE = f"{MOVE_ANNOTATION_PREFIX}signature"

_NUMBER = re.compile(r"\d{1,13}")
"""Thirteen digits of milliseconds reach to the year 2286."""


@dataclass(frozen=True, slots=True)
class TagSigner:
    """Settings for signing statements on tags: key, clock, validity and memory.

    `clock` returns seconds since the epoch; `validity` is in seconds; `memory` has the highest number that was seen on
    each tag, independent of the mirror. `former`: public keys whose statements are believed, and signed anew by `key`.
    """

    key: SigningKey
    clock: Callable[[], float]
    validity: int = MirrorRules().validity
    memory: TagMemory | None = None
    former: tuple[VerifyingKey, ...] = ()

    @property
    def trusted(self) -> VerifyingKey:
        """The public keys whose statements are believed."""
        return replace(self.key.public, former=self.former)

    @property
    def now(self) -> int:
        """The present time, in milliseconds since the epoch."""
        return int(self.clock() * 1000)

    def seen(self, repository: Repository, tag: str) -> int:
        """Return the highest number by a key that is believed that was seen on a tag; 0 if none was.

        By a former key only up to `ROOM`: who has stolen one could sign any.
        """
        if self.memory is None:
            return 0
        numbers = {each: self.memory.seen(repository.url, tag, each.fingerprint) for each in self.trusted.each}
        return max(number for each, number in numbers.items() if number <= ROOM or each == self.key.public)


@dataclass(frozen=True, slots=True)
class WrittenStatements:
    """The statements that a publisher has put on the mirror and need not look for, by record."""

    _statements: dict[Digest, RecordedStatement] = field(default_factory=dict)

    def note(self, one: RecordedStatement) -> None:
        """Note that a statement was put on the mirror just now."""
        self._statements[one.record] = one

    def on(self, repository: Repository, one: RecordedStatement) -> bool:
        """Return whether the mirror has the manifest of a listed statement."""
        return one.record in self._statements or repository.has_manifest(one.record)

    def among(self, listed: Sequence[RecordedStatement]) -> tuple[RecordedStatement, ...]:
        """Return what is listed and what was written, which a registry may not list yet."""
        return newest_first({**{one.record: one for one in listed}, **self._statements}.values())


def anchor_manifest(identity: str, tag: str) -> Manifest:
    """Make the anchor manifest of a tag of repository `identity`: subject of its statements."""
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
    """List the statements on a tag from annotations, newest first, unverified."""
    found = []
    for referrer in repository.referrers(anchor_manifest(identity, tag).digest):
        said = listed_statement(referrer.annotation, identity)
        if said is not None and said.move.tag == tag:
            found.append(RecordedStatement(referrer.descriptor.digest, said, _decoded(referrer.annotation(_SIGNATURE))))
    return newest_first(found)


def _decoded(signature: str) -> bytes:
    """Decode an annotation; what is no base64 is no key's signature."""
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b"malformed"


def listed_statement(note: Callable[[str], str], identity: str = "") -> TagStatement | None:
    """Parse a statement from a manifest's annotations, got by `note`; None if it is malformed."""

    def said(name: str) -> str:
        return note(MOVE_ANNOTATION_PREFIX + name)

    values = {name: said(name) for name in _TEXTS} | {name: said(name) for name in _NUMBERS}
    try:
        return _statement({**values, "repository": identity})
    except VerificationError:
        return None


def recent_statements(
    repository: Repository,
    identity: str,
    tag: str,
    key: VerifyingKey,
    *,
    written: WrittenStatements | None = None,
    listed: tuple[RecordedStatement, ...] | None = None,
) -> tuple[RecordedStatement, ...]:
    """Return the statements on a tag signed by `key`, from the newest to the newest renewal.

    Also older moves that began at the renewal's target. Statements before a renewal do not count otherwise. Those that
    prove themselves by what is listed cost no request and are not limited in number by others; of the rest, at most
    `STATEMENTS_EXAMINED` are read, and invalid ones skipped. `written`: for publishers, to whom none is returned that
    is listed and missing, so that they sign anew. `listed`: all that are listed, where the caller has just asked.
    Raises VerificationError as the repository does.
    """
    for _ in range(STATEMENT_ATTEMPTS):
        found: list[RecordedStatement] = []
        if listed is None:
            listed = list_statements(repository, identity, tag)
        superseded = False
        left = STATEMENTS_EXAMINED
        for one in listed:
            older = any(other.statement.renews and other.statement.number > one.statement.number for other in found)
            if older and not begins_where(one, found):
                continue
            remade = remade_statement(one, key)
            if remade is not None and remade.manifest.digest == one.record:
                if len(found) < STATEMENTS_EXAMINED:
                    there = written is None or written.on(repository, one)
                    superseded = superseded or not there
                    found += [one] * there
                continue
            if not left:  # The signature of one in the list may have been cut off on its way, so it is read.
                continue
            left -= 1
            manifest = _read_manifest(repository, one.record)
            superseded = superseded or manifest is None
            if manifest is not None and _holds(repository, manifest, one, key):
                found.append(one)
        if not superseded or found:
            break
        listed = None
    return tuple(found)


def find_statement(
    repository: Repository,
    identity: str,
    tag: str,
    record: Digest,
    key: VerifyingKey,
    *,
    listed: tuple[RecordedStatement, ...] | None = None,
) -> RecordedStatement | None:
    """Return the statement in the manifest `record`, if `key` signed it; None otherwise.

    `listed`: all that are listed, where the caller has just asked.
    """
    listed = list_statements(repository, identity, tag) if listed is None else listed
    one = next((one for one in listed if one.record == record), None)
    return one if one is not None and _is_by(repository, one, key) else None


def signed_statements(
    repository: Repository,
    identity: str,
    tag: str,
    key: VerifyingKey,
    *,
    listed: tuple[RecordedStatement, ...] | None = None,
) -> tuple[RecordedStatement, ...]:
    """Return all statements on a tag that `key` signed, the newest first.

    `listed`: all that are listed, where the caller has just asked.
    """
    listed = list_statements(repository, identity, tag) if listed is None else listed
    return tuple(one for one in listed if _is_by(repository, one, key))


def claimed_signer(repository: Repository, listed: RecordedStatement) -> Digest | None:
    """Return the fingerprint of the key that a listed statement names, unverified.

    None if the statement is missing, malformed, or says something else than its listing.
    """
    subject = anchor_manifest(listed.statement.repository, listed.statement.move.tag).digest
    try:
        manifest = repository.manifest(listed.record)
        if manifest is None:
            return None
        bundle = _read_bundle(repository, manifest)
        claimed = unverified_statement(bundle)
        about = subject in {one.digest for one in claimed.subjects} and claimed.predicate_type == MOVE
        return named_key(bundle) if about and _predicate(claimed.predicate) == listed.statement else None
    except VerificationError:
        return None


def _read_bundle(repository: Repository, manifest: Manifest) -> bytes:
    """Read a statement's bundle. Raises VerificationError, also `bundle-too-large`."""
    layer = bundle_layer(manifest)
    if layer.size > STATEMENT_SIZE_LIMIT:
        raise VerificationError("bundle-too-large", f"{layer.size} bytes are too many for a statement on a tag")
    return repository.read_blob(layer)


def _is_by(repository: Repository, listed: RecordedStatement, key: VerifyingKey) -> bool:
    """Return whether `key` signed the listed statement, and its record is of that."""
    remade = remade_statement(listed, key)
    if remade is not None and remade.manifest.digest == listed.record:
        return True
    if listed.signature and remade is None:
        return False
    manifest = _read_manifest(repository, listed.record)
    return manifest is not None and _holds(repository, manifest, listed, key)


def _read_manifest(repository: Repository, record: Digest) -> Manifest | None:
    """Read a statement's manifest; None if it is missing or damaged."""
    with contextlib.suppress(VerificationError):
        return repository.manifest(record)
    return None


def remade_statement(listed: RecordedStatement, key: VerifyingKey) -> Artifact | None:
    """Make a listed statement's manifest and bundle again; None if `key` did not sign it.

    Its record is the manifest's digest: who writes the list can put the values of one beside the record of another.
    """
    if not listed.signature:
        return None
    notes = _annotations(listed.statement) | {_SIGNATURE: base64.b64encode(listed.signature).decode()}
    anchor = anchor_manifest(listed.statement.repository, listed.statement.move.tag).descriptor
    return remade_attestation(_signed(listed.statement), anchor, key, notes, listed.signature)


def _holds(repository: Repository, manifest: Manifest, listed: RecordedStatement, key: VerifyingKey) -> bool:
    """Return whether a manifest's bundle is by `key`, and says exactly what is listed."""
    subject = anchor_manifest(listed.statement.repository, listed.statement.move.tag).digest
    try:
        signed = verify_bundle(manifest, _read_bundle(repository, manifest), subject, key)
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


def _annotations(said: TagStatement) -> dict[str, str]:
    return {MOVE_ANNOTATION_PREFIX + name: value for name, value in _values(said).items()}


def _signed(said: TagStatement) -> Statement:
    """Return what is signed: the statement about its tag's anchor."""
    anchor = anchor_manifest(said.repository, said.move.tag)
    subject = StatementSubject(anchor.digest, f"{said.repository}:{said.move.tag}")
    return Statement(MOVE, (subject,), canonical_json({**_values(said), "repository": said.repository}))


def _predicate(data: bytes) -> TagStatement:
    """Parse a signed predicate (JSON). Raises VerificationError `move-malformed`."""
    document = JsonReader.parse(data, "move")
    names = ("repository", *_TEXTS, *_NUMBERS)
    return _statement({name: document.get(name).text("") for name in names})


def _statement(said: Mapping[str, str]) -> TagStatement:
    """Make a statement from its text values.

    Raises VerificationError `move-malformed`, `digest-malformed`.
    """
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


def write_statement(
    repository: Repository, said: TagStatement, key: SigningKey, *, first: bool = False
) -> RecordedStatement:
    """Sign a statement and attach it to its tag's anchor. Raises as the repository does.

    `first`: nothing is listed of the anchor, so it is put without asking for it.
    """
    subject = anchor_manifest(said.repository, said.move.tag)
    artifact = make_attestation(
        _signed(said), subject.descriptor, key, annotations=_annotations(said), signature_annotation=_SIGNATURE
    )
    repository.put_blob(EMPTY_DESCRIPTOR, EMPTY_DATA)
    repository.put_manifest(subject, new=first)
    for descriptor, content in artifact.blobs:
        repository.put_blob(descriptor, content, new=descriptor != EMPTY_DESCRIPTOR)
    repository.attach_all((artifact.manifest,))  # with its time and number, there is no other like it
    signature = read_artifact(artifact.manifest).annotation(_SIGNATURE)
    return RecordedStatement(artifact.manifest.digest, said, _decoded(signature))


def tidy_statements(repository: Repository, newest: TagStatement, key: VerifyingKey, now: int) -> None:
    """Remove statements on a tag, signed by `key`, that `newest` makes unnecessary.

    These are superseded renewals, and the oldest moves beyond `STATEMENTS_KEPT`. Those younger than `AT_ONCE`
    at `now` (milliseconds since the epoch) are kept: their publisher may still check whether they are listed. A
    registry without deletions keeps all, which does no harm.
    """
    listed = list_statements(repository, newest.repository, newest.move.tag)
    with contextlib.suppress(EnvironmentLacking):
        for one in _superseded(listed, newest.number):
            if now - one.statement.move.at >= AT_ONCE and _is_by(repository, one, key):
                with contextlib.suppress(VerificationError):  # A damaged one is left to a scrub.
                    repository.remove_referrer(one.record)


def _superseded(listed: Sequence[RecordedStatement], newest: int) -> Iterator[RecordedStatement]:
    yield from (one for one in listed if one.statement.renews and one.statement.number < newest)
    yield from [one for one in listed if not one.statement.renews][STATEMENTS_KEPT:]
