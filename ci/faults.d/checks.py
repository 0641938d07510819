"""What must hold after a fault: looked at with nothing of relbuild's own but its `validate`, `fsck` and `verify`."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.oci import validate_layout

_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json")
_OLD = 2 * 86_400
"""Seconds: older than what relbuild spares as another process's work in flight."""


def torn(work: Path) -> Iterator[str]:
    """What is there and is not whole: layouts, locks, the mirror."""
    output = work / "output"
    for layout in sorted(output.iterdir()) if output.is_dir() else []:
        if (layout / "oci-layout").exists() and not layout.name.startswith("."):
            yield from (f"layout {layout.name}: {problem}" for problem in validate_layout(layout))
    for lock in sorted((work / "recipes").glob("*.lock")):
        text = lock.read_text(errors="replace")
        if not text.endswith("\n") or "\0" in text or len(text) < 100:
            yield f"lock {lock.name} is cut off after {len(text)} characters"
    yield from torn_mirror(work / "mirror")


def torn_mirror(mirror: Path) -> Iterator[str]:
    """Tags that point nowhere, and all that is reached from them and is not there or has other bytes."""
    for repository in _repositories(mirror):
        for tag in sorted((repository / "_tags").iterdir()) if (repository / "_tags").is_dir() else []:
            manifest = tag.resolve()
            if not manifest.is_file():
                yield f"tag {tag.name} of {repository.name} points to nothing"
                continue
            yield from _torn_manifest(mirror, repository, manifest, tag.name)


def tags(mirror: Path) -> dict[str, str]:
    """What tags point to, but those that record moves and what is attached."""
    found = {}
    for repository in _repositories(mirror):
        for tag in sorted((repository / "_tags").iterdir()) if (repository / "_tags").is_dir() else []:
            if not tag.name.startswith(("move.", "sha256-")):
                found[f"{repository.name}:{tag.name}"] = tag.resolve().name.partition(".")[0]
    return found


def leftovers(work: Path) -> Iterator[str]:
    """Temporary files that a later run should have removed."""
    for folder in (work / "store" / "tmp", work / "mirror" / ".incoming"):
        if folder.is_dir():
            yield from (f"left: {path.relative_to(work)}" for path in sorted(folder.iterdir()))
    for folder in (work / "output", work / "recipes"):
        if folder.is_dir():
            yield from (
                f"left: {path.relative_to(work)}" for path in sorted(folder.glob(".*")) if path.name != ".gitkeep"
            )


def age(work: Path) -> None:
    """Make what is in flight look as if it were from an hour ago: the next run may not take it for another's work."""
    old = time.time() - _OLD
    for folder in ("store/tmp", "mirror/.incoming", "output", "recipes"):
        root = work / folder
        for path in root.glob(".*" if folder in ("output", "recipes") else "*") if root.is_dir() else []:
            os.utime(path, (old, old), follow_symlinks=False)


def _repositories(mirror: Path) -> Iterator[Path]:
    root = mirror / "repositories"
    if root.is_dir():
        yield from sorted(path for path in root.iterdir() if path.is_dir())


_known: dict[tuple[int, int, int, str], bool] = {}


def _whole(path: Path, digest: str) -> bool:
    """Has a file the bytes that its digest promises? Looked at once while neither inode nor times change."""
    found = path.stat()
    key = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, digest)
    if key not in _known:
        _known[key] = hashlib.sha256(path.read_bytes()).hexdigest() == digest
    return _known[key]


def _torn_manifest(mirror: Path, repository: Path, manifest: Path, who: str) -> Iterator[str]:
    data = manifest.read_bytes()
    digest = manifest.name.partition(".")[0]
    if hashlib.sha256(data).hexdigest() != digest:
        yield f"manifest {digest} under {who} has other bytes"
        return
    value = json.loads(data)
    for child in value.get("manifests", ()):
        found = [*(repository / "_manifests").glob(child["digest"].removeprefix("sha256:") + ".*")]
        if not found:
            yield f"{who} names the manifest {child['digest']}, which is not there"
        elif child["mediaType"] in _MANIFESTS:
            yield from _torn_manifest(mirror, repository, found[0], who)
    for blob in [value["config"], *value["layers"]] if "config" in value else []:
        path = mirror / "blobs" / "sha256" / blob["digest"].removeprefix("sha256:")
        if not path.is_file():
            yield f"{who} names the blob {blob['digest']}, which is not there"
        elif not _whole(path, path.name):
            yield f"{who} names the blob {blob['digest']}, which has other bytes"
