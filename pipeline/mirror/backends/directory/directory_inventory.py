"""All that a directory mirror holds, for whoever decides what of it may go."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory.mirror_paths import Place, Shelf, manifest_of
from pipeline.model.artifact import Manifest

_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BlobHeld:
    """A blob: bytes, and when it came here, in seconds since the epoch.

    When is the change time of its inode, which nobody can set back, and which moving it within the mirror renews."""

    digest: Digest
    size: int
    arrived: float


@dataclass(frozen=True, slots=True)
class ManifestHeld:
    """A manifest of a repository, and when it came here."""

    repository: str
    manifest: Manifest
    arrived: float


@dataclass(frozen=True, slots=True)
class TagHeld:
    """A tag of a repository, auxiliary ones too: what it points to, and when it was last moved, in seconds since the
    epoch. `sha256-HEX` is the list of referrers of the manifest with that digest (`references.listed_referrers`)."""

    repository: str
    tag: str
    digest: Digest
    moved: float


@dataclass(frozen=True, slots=True)
class Inventory:
    """All blobs by digest, all manifests and tags by repository and name, sorted."""

    blobs: tuple[BlobHeld, ...]
    manifests: tuple[ManifestHeld, ...]
    tags: tuple[TagHeld, ...]


def take_inventory(place: Place) -> Inventory:
    """Look at all that is here. Tags are looked at first: what one of them points to is then in the inventory, also
    while others publish. What goes meanwhile is passed over. Raises VerificationError `digest-mismatch` for a damaged
    manifest."""
    shelves = [place.shelf(name) for name in place.names()]
    tags = [held for shelf in shelves for held in _tags(shelf)]
    manifests = [held for shelf in shelves for held in _manifests(shelf)]
    return Inventory(tuple(_blobs(place)), tuple(manifests), tuple(tags))


def _tags(shelf: Shelf) -> list[TagHeld]:
    found = []
    for tag in shelf.tag_names():
        with contextlib.suppress(FileNotFoundError):
            moved = (shelf.tags / tag).lstat().st_mtime
            digest = shelf.target(tag)
            if digest is not None:
                found.append(TagHeld(shelf.name, tag, digest, moved))
    return found


def _manifests(shelf: Shelf) -> list[ManifestHeld]:
    found = []
    for path in sorted(shelf.manifests.iterdir()):
        known = manifest_of(path)
        if known is None:
            continue
        digest, media_type = known
        with contextlib.suppress(FileNotFoundError):
            manifest = Manifest(media_type, path.read_bytes())
            if manifest.digest != digest:
                raise VerificationError(
                    "digest-mismatch",
                    f"{digest} has other bytes",
                    place=str(path),
                    hint="`relbuild scrub` puts it aside, and heals it where good bytes are",
                )
            found.append(ManifestHeld(shelf.name, manifest, path.stat().st_ctime))
    return found


def _blobs(place: Place) -> list[BlobHeld]:
    found = []
    with os.scandir(place.blobs) as entries:
        for entry in entries:
            if _BLOB.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    found.append(BlobHeld(Digest(entry.name), seen.st_size, seen.st_ctime))
    return sorted(found, key=lambda one: one.digest)
