"""The record of one pruning that can be undone.

It says what went, where it was, and what was brought back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.oci.image_manifest import JsonReader


@dataclass(frozen=True, slots=True)
class RemovalList:
    """List of what is to go.

    Tags as (repository, tag, what it points to), manifests as (repository, digest), blobs.
    """

    tags: tuple[tuple[str, str, Digest], ...] = ()
    manifests: tuple[tuple[str, Digest], ...] = ()
    blobs: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedPruning:
    """One pruning that can be undone.

    `at`: seconds since the epoch, whole; `size`: bytes of its blobs and manifests that are there.
    """

    stamp: str
    at: float
    leaving: RemovalList
    size: int


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """Result of restoring one pruning.

    It says what was brought back, and which tags were not, because they point elsewhere by now.
    """

    tags: tuple[tuple[str, str], ...]
    manifests: int
    blobs: int
    kept_tags: tuple[tuple[str, str], ...]


def removal_list_json(leaving: RemovalList, times: list[list[str]]) -> bytes:
    """Return the list of what is to go, as canonical JSON.

    `times`: rows of repository, tag, nanoseconds since the epoch.
    """
    return canonical_json(
        {
            "times": times,
            "tags": [[name, tag, str(digest)] for name, tag, digest in leaving.tags],
            "manifests": [[name, str(digest)] for name, digest in leaving.manifests],
            "blobs": [str(digest) for digest in leaving.blobs],
        }
    )


def read_removal_list(data: bytes, place: str) -> RemovalList:
    """Read the list of what was to go.

    `place` names the list in errors. Raises VerificationError `document-malformed`.
    """
    document = JsonReader.parse(data, place)
    tags = _rows(document.get("tags"), 3, place)
    manifests = _rows(document.get("manifests"), 2, place)
    return RemovalList(
        tuple((name, tag, Digest.parse(digest)) for name, tag, digest in tags),
        tuple((name, Digest.parse(digest)) for name, digest in manifests),
        tuple(Digest.parse(text) for text in document.get("blobs").texts()),
    )


def read_tag_times(data: bytes, place: str) -> dict[tuple[str, str], int]:
    """Read when tags were set: (repository, tag) → nanoseconds since the epoch.

    Raises VerificationError.
    """
    rows = _rows(JsonReader.parse(data, place).get("times"), 3, place)
    return {(name, tag): int(at) for name, tag, at in rows if re.fullmatch(r"\d{1,20}", at)}


def _rows(reader: JsonReader, columns: int, place: str) -> Sequence[tuple[str, ...]]:
    rows = [row.texts() for row in reader.items()]
    if any(len(row) != columns for row in rows):
        raise VerificationError("document-malformed", f"{place} is damaged", place=place)
    return rows
