"""Read a directory mirror's folders into an `Inventory`, from which a pruning is planned."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from pipeline.digest import Digest
from pipeline.mirror.backends.directory.lost_tags import has_lost_tags, leads_to_list, lost_tag
from pipeline.mirror.backends.directory.manifest_files import damaged_manifest, manifest_files, read_regular
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths, RepositoryPaths
from pipeline.mirror.inventory import (
    inventory_manifest,
    known_times,
    recorded_moves,
    signed_move,
)
from pipeline.mirror.references import References, media_type_of, readable_references
from pipeline.mirror.retention.pruning import (
    HeldBlob,
    HeldManifest,
    HeldRepository,
    HeldTag,
    Inventory,
)
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest

_BLOB = re.compile(r"[0-9a-f]{64}")

_NAMED = re.compile(rb"sha256:([0-9a-f]{64})")
"""Digests in a malformed manifest: what they name is kept as long as a tag leads to it."""


def take_inventory(place: MirrorPaths) -> Inventory:
    """List all repositories, tags, manifests and blobs of a directory mirror.

    Tags are read first, so that their manifests are in the inventory also while others publish. Files that are removed
    meanwhile are skipped. Raises VerificationError `digest-mismatch` for a damaged manifest, `tag-damaged` for what is
    in the place of a tag: what it led to is not known.
    """
    for folder, _, files in os.walk(place.repositories):
        if "_tags" in files:
            raise lost_tag(place.root, Path(folder, "_tags"))
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
    signed = (signed_move(said) for _, said, _ in manifests.values() if said is not None)
    known = known_times((*recorded_moves(tagged), *(move for move in signed if move is not None)))
    return HeldRepository(
        paths.name,
        tags,
        tuple(
            _held(manifest, said, max(arrived, known.get(digest, 0)))
            for digest, (manifest, said, arrived) in sorted(manifests.items(), key=lambda one: one[0])
        ),
        has_lost_tags(paths.place.root, paths.name),
    )


def _held(manifest: Manifest, said: References | None, since: int) -> HeldManifest:
    if said is not None:
        return inventory_manifest(manifest, said, since)
    named = (Digest(name.decode()) for name in dict.fromkeys(_NAMED.findall(manifest.data)))
    blobs = tuple(Descriptor("", digest, 0) for digest in named)
    return HeldManifest(
        manifest.digest, manifest.media_type, len(manifest.data), blobs=blobs, since=since, planted=True
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
            elif not leads_to_list(tag) and os.path.lexists(paths.tags / tag):
                raise lost_tag(paths.place.root, paths.tags / tag)
    return tuple(found)


def _manifests(paths: RepositoryPaths) -> dict[Digest, tuple[Manifest, References | None, int]]:
    """Return all manifests, their references, and when each arrived (see `_blobs`).

    A malformed one has none. Of several files with the same content, what all refer to counts.
    """
    found: dict[Digest, tuple[Manifest, References | None, int]] = {}
    for path, digest, media_type in manifest_files(paths.manifests):
        read = read_regular(path)
        if read is None and not os.path.lexists(path):  # removed meanwhile
            continue
        manifest = Manifest(media_type, read[0] if read is not None else b"")
        if read is None or manifest.digest != digest:
            raise damaged_manifest(digest, path)
        said, before = readable_references(manifest), found.get(digest)
        if before is None or (said is not None and before[1] is None):
            found[digest] = manifest, said, int(read[1].st_ctime)
        elif said is not None and before[1] is not None:
            better = media_type_of(manifest.data) == media_type
            joined = said.joined(before[1]) if better else before[1].joined(said)
            found[digest] = manifest if better else before[0], joined, int(read[1].st_ctime)
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
