"""Put aside what somebody planted where a folder or a lock of a directory mirror belongs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.mirror.atomic_files import make_folder
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.known_blobs import is_folder, regular_file, set_aside
from pipeline.model.scrub import DamageKind, Finding, RepairOutcome, ScrubbedObject

_FOLDERS = (".lock", ".incoming", ".scrub", ".scrub/blobs")
_FILES = (".lock/gate", ".lock/prune", ".lock/catalog", ".scrub/run.json")


def put_misplaced_aside(place: MirrorPaths) -> list[Finding]:
    """Move links, FIFOs and the like in the place of own folders and locks to quarantine.

    Folders that are missing then are made. No lock is held: while something else is in its place, nobody holds it.
    """
    found = []
    for path, wanted in _places(place):
        there = is_folder(path) if wanted else regular_file(path) is not None
        if there or not os.path.lexists(path):
            continue
        set_aside(place.root, path)
        if wanted:
            make_folder(path)
        name = path.relative_to(place.root).as_posix()
        found.append(Finding(ScrubbedObject.MARKER, DamageKind.ROTTEN, name, "", RepairOutcome.ASIDE))
    place.make()
    return found


def _places(place: MirrorPaths) -> Iterator[tuple[Path, bool]]:
    """Yield paths of the mirror's folders (True), and of files in them (False)."""
    yield from ((place.root / name, True) for name in _FOLDERS)
    yield from ((place.root / name, False) for name in _FILES)
    for folder, inner, files in os.walk(place.repositories):
        names = {name for name in ("_manifests", "_tags") if name in inner or name in files}
        if any(is_folder(Path(folder, name)) for name in names):
            yield from ((Path(folder, name), True) for name in names)
            yield from ((Path(folder, name), False) for name in ("_lock", "_moves"))
        inner[:] = [name for name in inner if not name.startswith(("_", "."))]
