"""Read a directory mirror's folders into an `Inventory`, from which a pruning is planned."""

from __future__ import annotations

import contextlib
import os
import re

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.directory.manifest_names import parse_manifest_path
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths, RepositoryPaths
from pipeline.mirror.inventory import (
    inventory_manifest,
    known_times,
    recorded_moves,
    signed_move,
)
from pipeline.mirror.retention.pruning import (
    HeldBlob,
    HeldRepository,
    HeldTag,
    Inventory,
)
from pipeline.model.manifests import Manifest

_BLOB = re.compile(r"[0-9a-f]{64}")


def take_inventory(place: MirrorPaths) -> Inventory:
    """List all repositories, tags, manifests and blobs of a directory mirror.

    Tags are read first, so that their manifests are in the inventory also while others publish. Files that are removed
    meanwhile are skipped. Raises VerificationError `digest-mismatch` for a damaged manifest.
    """
    tags = {name: _tags(place.paths(name)) for name in place.names()}
    repositories = (_repository(place.paths(name), held) for name, held in tags.items())
    return Inventory(
        tuple(one for one in repositories if one.tags or one.manifests),
        tuple(_blobs(place)),
    )


def _repository(paths: RepositoryPaths, tags: tuple[HeldTag, ...]) -> HeldRepository:
    """Return a repository with its tags and manifests.

    A client may still be pulling the manifest from which a tag was just moved away: its age counts from that move.
    """
    manifests = _manifests(paths)
    tagged = {tag.name: manifests[tag.digest][0] for tag in tags if tag.digest in manifests}
    signed = (signed_move(manifest) for manifest, _ in manifests.values())
    known = known_times((*recorded_moves(tagged), *(move for move in signed if move is not None)))
    return HeldRepository(
        paths.name,
        tags,
        tuple(
            inventory_manifest(manifest, max(arrived, known.get(digest, 0)))
            for digest, (manifest, arrived) in sorted(manifests.items(), key=lambda one: one[0])
        ),
    )


def _tags(paths: RepositoryPaths) -> tuple[HeldTag, ...]:
    """Return all tags, auxiliary ones too, with the time at which each was last moved."""
    found = []
    for tag in paths.tag_names():
        with contextlib.suppress(FileNotFoundError):
            moved = (paths.tags / tag).lstat().st_mtime
            digest = paths.target(tag)
            if digest is not None:
                found.append(HeldTag(tag, digest, int(moved)))
    return tuple(found)


def _manifests(paths: RepositoryPaths) -> dict[Digest, tuple[Manifest, int]]:
    """Return all manifests, with the time at which each arrived (see `_blobs`)."""
    found = {}
    for path in sorted(paths.manifests.iterdir()):
        known = parse_manifest_path(path)
        if known is None:
            continue
        digest, media_type = known
        with contextlib.suppress(FileNotFoundError):
            manifest = Manifest(media_type, path.read_bytes())
            if manifest.digest != digest:
                raise VerificationError(
                    "digest-mismatch",
                    f"the content of {digest} does not match its digest",
                    place=str(path),
                    hint="`relbuild scrub` moves it to quarantine and restores it from a good copy",
                )
            found[digest] = manifest, int(path.stat().st_ctime)
    return found


def _blobs(place: MirrorPaths) -> list[HeldBlob]:
    """List all blobs, with the time at which each arrived.

    That is its inode's change time, which no program can set, and which a rename within the mirror renews.
    """
    found = []
    with os.scandir(place.blobs) as entries:
        for entry in entries:
            if _BLOB.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    seen = entry.stat(follow_symlinks=False)
                    found.append(HeldBlob(Digest(entry.name), seen.st_size, int(seen.st_ctime)))
    return sorted(found, key=lambda one: one.digest)
