"""Measure a store's disk usage, collect garbage by last use, and verify all its files."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import assert_never

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.store.authenticated_values import SealFault, read_small
from pipeline.store.blobs import stamp_of_whole
from pipeline.store.content_store import Store, last_stamped
from pipeline.store.locks import remove_unheld, sweep_temporary
from pipeline.store.seal_key import KEY_FILE, read_key
from pipeline.store.seen_values import lasts
from pipeline.store.store_folders import STORE_FOLDERS
from pipeline.store.store_processes import oldest_other_process
from pipeline.system_errors import FULL_DISK

_USE_NOTED = 2 * 86400.0
"""Seconds for which a use may not be recorded: a day with relatime, and as much again for what was looked up and is
about to be used."""

PARTIAL = "partial"
"""Name of the folder of partial downloads below `metadata`."""


@dataclass(frozen=True, slots=True)
class GarbageCollected:
    """Result of a garbage collection: kind of content → bytes freed.

    `spared_since`: because another process uses the store, everything used since then (seconds since the epoch) was
    kept.
    """

    freed: dict[str, int]
    spared_since: float | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged file or folder of the store, which was moved to quarantine."""

    kind: str
    path: Path
    why: str


@dataclass(frozen=True, slots=True)
class StoreChecked:
    """Result of verifying a whole store.

    `read`: kind of content → number of intact items; `foreign`: number of results and trees without this store's
    seal, of another store, a former key or an older relbuild, which are ignored.
    """

    damaged: tuple[Damage, ...]
    read: dict[str, int]
    foreign: int


def store_usage(store: Store) -> dict[str, int]:
    """Return kind of content (folder's name) → bytes on disk, with sandboxes and volumes."""
    every = {*STORE_FOLDERS, *(path.name for path in store.root.iterdir() if path.is_dir() and not path.is_symlink())}
    return {name: sum(_bytes(path) for path in (store.root / name).glob("*")) for name in sorted(every)}


# --- collecting ------------------------------------------------------------------------------------------


def collect_garbage(store: Store, before: float, keep: Collection[Digest] = ()) -> GarbageCollected:
    """Remove what was last used before `before` (seconds since the epoch), except blobs `keep`.

    Records of what was seen (`seen_values`) are kept however old they are: nothing can make them again.
    Also lock files that nobody holds. The last use is a file's access or modification time (to a day, with relatime),
    or that of the stamp recorded for a blob; for a folder, the latest of the files directly in it. What another running
    process may use is kept. What is removed is made or fetched again when it is needed.
    """
    since = oldest_other_process(store.root)
    spared = None if since is None or since - _USE_NOTED >= before else since - _USE_NOTED
    limit = before if spared is None else spared
    kept = {digest.hex for digest in keep}
    freed = dict.fromkeys(("blobs", "metadata", "quarantine", "results", "trees"), 0)
    # Blobs before results: the results tell when blobs were used.
    for kind in freed:
        for path in sorted(_items(store, kind)):
            with contextlib.suppress(FileNotFoundError):  # Another process is collecting too.
                if (kind == "blobs" and path.name in kept) or _last_used(store, kind, path) >= limit:
                    continue
                if kind == "results" and lasts(path):
                    continue
                freed[kind] += _remove(store, kind, path)
    for path in sorted((store.root / "locks").glob("*")):
        remove_unheld(path)
    sweep_temporary(store.root / "tmp")
    return GarbageCollected(freed, spared)


def _items(store: Store, kind: str) -> Iterator[Path]:
    """Yield the paths of all items of a kind of content; symlinks are items, not followed."""
    for path in (store.root / kind).glob("*"):
        inside = kind == "results" or (kind == "metadata" and path.name == PARTIAL)
        if inside and path.is_dir() and not path.is_symlink():
            yield from path.glob("*")
        else:
            yield path


def _last_used(store: Store, kind: str, path: Path) -> float:
    """Return the time at which an item was last used, in seconds since the epoch."""
    seen = [path.lstat()]
    if stat.S_ISLNK(seen[0].st_mode):
        return 0.0  # relbuild makes no symlinks there.
    if stat.S_ISDIR(seen[0].st_mode):
        seen += [entry.lstat() for entry in path.iterdir() if entry.is_file()]
    elif kind == "blobs":
        with contextlib.suppress(FileNotFoundError, VerificationError):
            seen.append(last_stamped(store, Digest(path.name)).lstat())
    return max(max(one.st_atime, one.st_mtime) for one in seen)


def _remove(store: Store, kind: str, path: Path) -> int:
    """Remove an item in one step; return the bytes that were freed."""
    found = path.lstat()
    if kind == "blobs" and found.st_nlink > 1:
        path.unlink()  # Hard-linked by a layout or mirror of an older relbuild: nothing is freed, and nothing is lost.
        return 0
    size = _bytes(path)
    with store.temporary("collected") as folder:
        path.rename(folder / path.name)
    return size


def _bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_blocks * 512
    return sum(entry.lstat().st_blocks * 512 for entry in path.rglob("*"))


# --- checking --------------------------------------------------------------------------------------------


def check_store(store: Store, progress: Progress = QUIET) -> StoreChecked:
    """Read and verify everything in the store; move what is damaged to quarantine.

    It is then made or fetched again when it is needed.
    """
    with task(progress, "fsck", str(store.root), unit="items") as running:
        return _check_all(store, running)


def _check_all(store: Store, running: Task) -> StoreChecked:
    damaged: list[Damage] = []
    read = dict.fromkeys(("blobs", "results", "trees", "metadata"), 0)
    foreign = 0
    _check_key(store, damaged)
    for path in _counted((store.root / "blobs").iterdir(), running):
        if not _check_blob(store, path):
            damaged.append(_put_aside(store, "blob", path, "its content does not match its digest"))
        else:
            read["blobs"] += 1
    for path in _counted(_items(store, "results"), running):
        match _check_result(store, path):
            case None:
                read["results"] += 1
            case SealFault.FOREIGN:
                foreign += 1
            case SealFault.DAMAGED:
                damaged.append(_put_aside(store, "result", path, "it was changed after this store wrote it"))
            case other:
                assert_never(other)
    for path in _counted((store.root / "trees").iterdir(), running):
        if path.is_dir() and not path.is_symlink() and store.trees.holds(path, reading=True):
            read["trees"] += 1
        elif not path.is_symlink() and store.trees.is_foreign(path):
            foreign += 1
        elif os.path.lexists(path):  # Else it was garbage-collected meanwhile.
            damaged.append(_put_aside(store, "tree", path, "it was changed after this store wrote it"))
    for path in _counted(_items(store, "metadata"), running):
        if path.parent.name == PARTIAL and path.is_file() and not path.is_symlink():
            read["metadata"] += 1  # A partial download: verified by its digest when it is complete.
        else:
            damaged.append(_put_aside(store, "metadata", path, "not a file of relbuild's"))
    return StoreChecked(tuple(damaged), read, foreign)


def _counted(paths: Iterable[Path], running: Task) -> Iterator[Path]:
    """Yield the paths sorted, and count them as done one by one."""
    for path in sorted(paths):
        yield path
        running.advance(1)


def _check_key(store: Store, damaged: list[Damage]) -> None:
    if store.key is not None:
        return
    try:
        read_key(store.root)
    except VerificationError as error:
        damaged.append(_put_aside(store, "key", store.root / KEY_FILE, error.problems[0].message))


def _check_blob(store: Store, path: Path) -> bool:
    try:
        digest = Digest(path.name)
    except VerificationError:
        return False
    whole = stamp_of_whole(path, digest)
    if whole is None:
        return not os.path.lexists(path)  # It may have been garbage-collected meanwhile.
    try:
        store.note_whole(digest)
    except OSError as error:
        if error.errno not in FULL_DISK:  # It is hashed again the next time; what is damaged can be put aside.
            raise
    return True


def _check_result(store: Store, path: Path) -> SealFault | None:
    data = read_small(path)
    if not data:
        return None  # Gone meanwhile, or without its bytes after a power cut: it is missing.
    if isinstance(data, SealFault):
        return data
    try:
        value = store.unseal(Digest(path.name), data)
    except VerificationError:
        return SealFault.DAMAGED
    return value if isinstance(value, SealFault) else None


def _put_aside(store: Store, kind: str, path: Path, why: str) -> Damage:
    store.quarantine(path, why)
    return Damage(kind, path, why)
