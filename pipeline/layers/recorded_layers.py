"""Unpack layers into one tree without privileges: owners and modes go into a table.

Whiteouts are applied, as overlayfs shows them. The tree belongs to one build, and is no tree of the store's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import assert_never

from pipeline.errors import BuildError, VerificationError
from pipeline.layers.tar_format import TarMember
from pipeline.layers.unpack_layer import LAYER_ENTRIES_LIMIT, layer_members
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind
from pipeline.progress import Progress, task
from pipeline.sandbox import InodeRecord, InodeRecords, RecordedTree, real_mode
from pipeline.store import Store

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class UnpackedState:
    """The state of a file of the layers as it was unpacked; another one now is a change."""

    inode: int
    changed_at: int
    record: InodeRecord


def unpack_recorded(
    layers: Sequence[Layer], root: Path, *, store: Store, progress: Progress
) -> tuple[RecordedTree, Mapping[str, UnpackedState]]:
    """Unpack layers, the lowest first, into the empty directory `root`.

    Returns the tree, and its files as they are then.

    Raises VerificationError and BuildError as `unpack_to_store` does.
    """
    status = root.stat()
    tree = RecordedTree(root, InodeRecords(status.st_dev, os.getuid()))
    tree.records.set(status, InodeRecord(0o755))
    unpacking = _Unpacking(tree)
    for layer in layers:
        with task(progress, "unpack", layer.name, total=layer.tar_size, unit="bytes") as running:
            unpacking.begin(layer.name)
            for count, member in enumerate(layer_members(layer, store=store)):
                if count >= LAYER_ENTRIES_LIMIT:
                    raise unpacking.malformed(f"it has more than {LAYER_ENTRIES_LIMIT} entries")
                unpacking.place(member)
                running.advance(member.entry.size)
    return tree, unpacking.finish()


@dataclass(slots=True)
class _Unpacking:
    """The state of unpacking: the kinds of all paths, and the paths of the present layer."""

    tree: RecordedTree
    layer: str = ""
    kinds: dict[str, EntryKind] = field(default_factory=lambda: {"": EntryKind.DIRECTORY})
    folders: dict[str, Entry] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)

    def begin(self, layer: str) -> None:
        """Begin the next layer."""
        self.layer = layer
        self.own = set()

    def malformed(self, why: str) -> VerificationError:
        """Make an error about the present layer."""
        return VerificationError("layer-malformed", f"layer '{self.layer}' cannot be unpacked: {why}")

    def place(self, member: TarMember) -> None:
        """Unpack one entry."""
        entry = member.entry
        path = entry.path
        if path in self.own:
            raise self.malformed(f"/{path} appears twice")
        if path and self.kinds.get(path.rpartition("/")[0]) is not EntryKind.DIRECTORY:
            raise self.malformed(f"/{path} is not below a directory")
        if entry.kind is EntryKind.OPAQUE:
            self._hide(path)
            return
        if entry.kind is EntryKind.WHITEOUT:
            self._remove(path)
            return
        self.own.add(path)
        before = self.kinds.get(path)
        if before is not None and not (before is entry.kind is EntryKind.DIRECTORY):
            self._remove(path)
        self._make(entry, member)
        self.kinds[path] = EntryKind.FILE if entry.kind is EntryKind.HARDLINK else entry.kind

    def _make(self, entry: Entry, member: TarMember) -> None:
        place = self.tree.root / entry.path
        mode = 0o777 if entry.kind is EntryKind.SYMLINK else entry.mode  # As every file system has it.
        record = InodeRecord(mode, entry.uid, entry.gid, entry.xattrs)
        match entry.kind:
            case EntryKind.DIRECTORY:
                place.mkdir(mode=0o700, exist_ok=True)
                self.folders[entry.path] = entry
            case EntryKind.FILE:
                with open(os.open(place, _NEW_FILE, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                    for piece in member.pieces() if entry.size else ():
                        file.write(piece)
                place.chmod(real_mode(entry.mode, directory=False))
                os.utime(place, (entry.mtime, entry.mtime))
            case EntryKind.HARDLINK:
                if self.kinds.get(entry.link) is not EntryKind.FILE or entry.link not in self.own:
                    raise self.malformed(f"/{entry.path} is a hard link to /{entry.link}, no file of the layer")
                os.link(self.tree.root / entry.link, place, follow_symlinks=False)
                status = place.lstat()
                self.tree.records.lower.add((status.st_dev, status.st_ino))
                return
            case EntryKind.SYMLINK:
                place.symlink_to(entry.link)
                os.utime(place, (entry.mtime, entry.mtime), follow_symlinks=False)
            case EntryKind.FIFO:
                os.mkfifo(place, 0o600)
                place.chmod(real_mode(entry.mode, directory=False))
                os.utime(place, (entry.mtime, entry.mtime))
            case EntryKind.CHARACTER | EntryKind.BLOCK | EntryKind.WHITEOUT | EntryKind.OPAQUE:
                raise BuildError(
                    "device-node",
                    f"/{entry.path} in layer '{self.layer}' is a device node; relbuild does not unpack those",
                    place=f"/{entry.path}",
                )
            case other:
                assert_never(other)
        self.tree.records.set(place.lstat(), record)

    def _remove(self, path: str) -> None:
        if self.kinds.get(path) is None:
            return
        place = self.tree.root / path
        self.tree.forget(path)
        if self.kinds[path] is not EntryKind.DIRECTORY:
            place.unlink()
            del self.kinds[path]
            return
        shutil.rmtree(place)
        for one in [one for one in self.kinds if one == path or one.startswith(f"{path}/")]:
            del self.kinds[one]
            self.folders.pop(one, None)

    def _hide(self, folder: str) -> None:
        """Remove what lower layers have below a directory."""
        prefix = f"{folder}/" if folder else ""
        for path in [one for one in self.kinds if one.startswith(prefix) and one not in self.own and one != folder]:
            if path in self.kinds and not any(mine.startswith(f"{path}/") for mine in self.own):
                self._remove(path)

    def finish(self) -> dict[str, UnpackedState]:
        """Set the times of directories, the deepest first; return what each file is now."""
        for path in sorted(self.folders, reverse=True):
            entry, place = self.folders[path], self.tree.root / path
            place.chmod(real_mode(entry.mode, directory=True))
            os.utime(place, (entry.mtime, entry.mtime))
        found = {}
        for path in self.kinds:
            status = (self.tree.root / path).lstat()
            found[path] = UnpackedState(status.st_ino, status.st_ctime_ns, self.tree.records.of(status))
            if self.kinds[path] is EntryKind.DIRECTORY:
                self.tree.records.lower.add((status.st_dev, status.st_ino))
        return found
