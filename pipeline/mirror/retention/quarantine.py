"""Data classes of an undoable pruning; encode and parse its list.json, without file I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.digest import Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.oci.image_manifest import JsonReader


@dataclass(frozen=True, slots=True)
class RemovalList:
    """Removals of a pruning.

    `tags`: (repository, tag, target); `manifests`: (repository, digest); `blobs`.
    """

    tags: tuple[tuple[str, str, Digest], ...] = ()
    manifests: tuple[tuple[str, Digest], ...] = ()
    blobs: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedPruning:
    """One pruning that can be undone.

    `at`: whole seconds since the epoch; `size`: bytes of its blobs and manifests in quarantine.
    """

    stamp: str
    at: float
    leaving: RemovalList
    size: int


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """Result of restoring one pruning: tags (repository, tag), numbers of manifests and blobs.

    `kept_tags` were not restored, because they point elsewhere by now.
    """

    tags: tuple[tuple[str, str], ...]
    manifests: int
    blobs: int
    kept_tags: tuple[tuple[str, str], ...]


def removal_list_json(leaving: RemovalList, times: list[list[str]]) -> bytes:
    """Encode list.json. `times`: rows of repository, tag, nanoseconds since the epoch."""
    return canonical_json(
        {
            "times": times,
            "tags": [[name, tag, str(digest)] for name, tag, digest in leaving.tags],
            "manifests": [[name, str(digest)] for name, digest in leaving.manifests],
            "blobs": [str(digest) for digest in leaving.blobs],
        }
    )


def read_removal_list(data: bytes, place: str) -> RemovalList:
    """Parse list.json, named `place` in errors. Raises VerificationError `document-malformed`."""
    document = JsonReader.parse(data, place)
    tags = _rows(document.get("tags"), 3, place)
    manifests = _rows(document.get("manifests"), 2, place)
    return RemovalList(
        tuple((name, tag, Digest.parse(digest)) for name, tag, digest in tags),
        tuple((name, Digest.parse(digest)) for name, digest in manifests),
        tuple(Digest.parse(text) for text in document.get("blobs").texts()),
    )


def read_tag_times(data: bytes, place: str) -> dict[tuple[str, str], int]:
    """Parse from list.json when tags were set: (repository, tag) → nanoseconds since the epoch.

    Raises VerificationError.
    """
    rows = _rows(JsonReader.parse(data, place).get("times"), 3, place)
    return {(name, tag): int(at) for name, tag, at in rows if re.fullmatch(r"\d{1,20}", at)}


def _rows(reader: JsonReader, columns: int, place: str) -> Sequence[tuple[str, ...]]:
    rows = [row.texts() for row in reader.items()]
    if any(len(row) != columns for row in rows):
        raise VerificationError("document-malformed", f"{place} is damaged", place=place)
    return rows
