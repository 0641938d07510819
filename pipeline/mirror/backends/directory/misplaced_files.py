"""Put aside what somebody planted where a folder or a lock of a directory mirror belongs.

A link to a folder or file is left: its target can be locked through it, and an operator may have made it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.mirror.atomic_files import folder_locked_at_once, make_folder
from pipeline.mirror.backends.directory.lost_tags import put_tag_aside
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.known_blobs import is_folder, set_aside
from pipeline.model.scrub import DamageKind, Finding, RepairOutcome, ScrubbedObject

_WITHOUT_LINKS = (".incoming", ".scrub", ".scrub/blobs")
"""Folders that every command refuses where they are links: nobody locks anything in them."""

_FOLDERS = (".lock", *_WITHOUT_LINKS)
_FILES = (".lock/gate", ".lock/prune", ".lock/catalog", ".scrub/run.json")


def put_misplaced_aside(place: MirrorPaths, warn: Callable[[str], None]) -> list[Finding]:
    """Move FIFOs and the like in the place of own folders and locks to quarantine.

    Folders that are missing then are made.

    What may be a lock that somebody holds stays: a file, and a link to one, of which `warn` is told. Nor is anything
    moved while another scrub does so, since what it moved away may have been made anew, and be held.
    """
    found = []
    with folder_locked_at_once(place.root) as alone:
        for path, wanted in _places(place) if alone else ():
            fate = _judge(place.root, path, wanted, warn)
            if fate is RepairOutcome.ASIDE:
                _put_aside(place, path, wanted)
            if fate is not None:
                name = path.relative_to(place.root).as_posix()
                found.append(Finding(ScrubbedObject.MARKER, DamageKind.ROTTEN, name, "", fate))
    place.make()
    return found


def _judge(root: Path, path: Path, wanted: bool, warn: Callable[[str], None]) -> RepairOutcome | None:
    """Return `ASIDE` for what is no folder (`wanted`) or file, and no lock; None to leave it.

    `LOST` for a link in the place of manifests: nobody reads any through it.
    """
    fits = stat.S_ISDIR if wanted else stat.S_ISREG
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISLNK(mode):
        return None if fits(mode) else RepairOutcome.ASIDE
    with contextlib.suppress(OSError):  # to nothing, or what cannot be looked at
        if path.relative_to(root).as_posix() in _WITHOUT_LINKS or not fits(path.stat().st_mode):
            return RepairOutcome.ASIDE
    warn(f"'{path}' is a link, which is left: if nobody made it on purpose, remove it while nothing is published")
    return RepairOutcome.LOST if path.name == "_manifests" else None


def _put_aside(place: MirrorPaths, path: Path, wanted: bool) -> None:
    if path.name == "_tags":
        put_tag_aside(place.root, path.parent.relative_to(place.repositories).as_posix(), path)
    else:
        set_aside(place.root, path)
    if wanted:
        make_folder(path)


def _places(place: MirrorPaths) -> Iterator[tuple[Path, bool]]:
    """Yield paths of the mirror's folders (True), and of files in them (False)."""
    yield from ((place.root / name, True) for name in _FOLDERS)
    yield from ((place.root / name, False) for name in _FILES)
    for folder, inner, files in os.walk(place.repositories):
        names = {name for name in ("_manifests", "_tags") if name in inner or name in files}
        if any(is_folder(Path(folder, name)) for name in names):
            yield from ((Path(folder, name), True) for name in sorted(names))
            yield from ((Path(folder, name), False) for name in ("_lock", "_moves"))
        inner[:] = [name for name in inner if not name.startswith(("_", "."))]
