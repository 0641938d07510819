"""The history of tags, kept in the mirror itself: each move is written down before it is made, as a small manifest
under a tag of its own that is never used again. There is no other database.

A move that was written down and not made (its maker was killed, or overtaken by another) is told from one that was
made by what came after it: the next move of that tag says what it found.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.mirror.repository import Repository
from pipeline.model.artifact import Manifest
from pipeline.model.publication import Move, Past, Why
from pipeline.oci import media_types
from pipeline.oci.artifacts import EMPTY, EMPTY_DATA
from pipeline.oci.image import Reader, descriptor_json

MOVE_TYPE = "application/vnd.relbuild.move.v1+json"

_NOTE = "org.relbuild.move."
_RECORD = re.compile(r"move\.(?P<tag>.+)\.(?P<at>\d{8}T\d{9}Z)\.[0-9a-f]{6}")
_LONGEST_NAME = 90
"""Characters of a tag's name that the name of a record holds: the rest of the 128 is taken by time and number."""


def write_down(repository: Repository, move: Move) -> str:
    """Write a move down before it is made; returns the record's tag. Raises as the repository does."""
    at = datetime.fromtimestamp(move.at / 1000, UTC)
    stamp = f"{at:%Y%m%dT%H%M%S}{move.at % 1000:03d}Z"
    record = f"move.{move.tag[:_LONGEST_NAME]}.{stamp}.{secrets.token_hex(3)}"
    repository.put_blob(EMPTY, EMPTY_DATA)
    manifest = _manifest(move)
    repository.put_manifest(manifest)
    repository.put_auxiliary(record, manifest, None)
    return record


def read_history(repository: Repository, tag: str) -> tuple[Past, ...]:
    """All moves of a tag, oldest first. Raises VerificationError `move-malformed`."""
    found: list[tuple[Move, str]] = []
    for record in records(repository.tags(), tag):
        manifest = repository.manifest(record)
        if manifest is None:  # pruned since the tags were listed
            continue
        move = read_move(manifest, record)
        if move.tag == tag:
            found.append((move, record))
    found.sort(key=lambda one: (one[0].at, one[1]))
    return _told(found, repository.resolve(tag))


def records(tags: Sequence[str], tag: str | None = None) -> tuple[str, ...]:
    """The tags among `tags` under which moves (of `tag`) are written down."""
    names = []
    for name in tags:
        parsed = _RECORD.fullmatch(name)
        if parsed and (tag is None or parsed["tag"] == tag[:_LONGEST_NAME]):
            names.append(name)
    return tuple(names)


def earlier(past: Sequence[Past]) -> tuple[Digest, ...]:
    """What a tag pointed to before, the most recent first, with what was rolled back left out: the first is where
    rolling back goes, and rolling back again goes further."""
    stack: list[Digest] = []
    for one in past:
        if not one.happened:
            continue
        move = one.move
        if move.before is not None and (not stack or stack[-1] != move.before):
            stack.append(move.before)
        if move.why is Why.ROLLBACK and move.after in stack:
            while stack[-1] != move.after:
                stack.pop()
        else:
            stack.append(move.after)
    return tuple(reversed(stack[:-1]))


def _told(found: Sequence[tuple[Move, str]], now: Digest | None) -> tuple[Past, ...]:
    """Which moves were made: seen from the end, what the tag points to was put there by the last move that says so,
    and that one says what it found."""
    told: list[Past] = []
    stands = now
    for move, record in reversed(found):
        happened = move.after == stands
        told.append(Past(move, record, happened))
        if happened:
            stands = move.before
    return tuple(reversed(told))


def _manifest(move: Move) -> Manifest:
    notes = {
        f"{_NOTE}tag": move.tag,
        f"{_NOTE}to": str(move.after),
        f"{_NOTE}at": str(move.at),
        f"{_NOTE}why": str(move.why),
        f"{_NOTE}version": move.version,
        **({f"{_NOTE}from": str(move.before)} if move.before else {}),
    }
    empty = descriptor_json(EMPTY)
    return Manifest(
        media_types.MANIFEST,
        canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": media_types.MANIFEST,
                "artifactType": MOVE_TYPE,
                "config": empty,
                "layers": [empty],
                "annotations": notes,
            }
        ),
    )


def read_move(manifest: Manifest, record: str) -> Move:
    """A record → the move that it tells of. Raises VerificationError `move-malformed`."""
    place = f"record {record}"
    notes = Reader.parse(manifest.data, place).get("annotations")
    before = notes.get(f"{_NOTE}from").text("")
    # Thirteen digits of milliseconds reach to the year 2286: anybody who can write to the mirror can write a record.
    at, why = notes.get(f"{_NOTE}at").text(), notes.get(f"{_NOTE}why").text()
    if not re.fullmatch(r"\d{1,13}", at) or why not in set(Why):
        raise VerificationError(
            "move-malformed", f"{place} is no record of a move: {at[:40]!r}, {why[:40]!r}", place=place
        )
    return Move(
        tag=notes.get(f"{_NOTE}tag").text(),
        before=Digest.parse(before) if before else None,
        after=Digest.parse(notes.get(f"{_NOTE}to").text()),
        at=int(at),
        why=Why(why),
        version=notes.get(f"{_NOTE}version").text(""),
    )
