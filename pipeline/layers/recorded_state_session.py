"""Trace the state layer's commands, with its owners and modes in a table.

That needs no privileges.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.compression import Compression
from pipeline.layers.layer_changes import LayerChanges, parents_of
from pipeline.layers.pack_layer import image_kind, require_depth, require_no_whiteout, write_layer_entries
from pipeline.layers.recorded_layers import UnpackedState, unpack_recorded
from pipeline.layers.state_preparation import STATE_LAYER_NAME
from pipeline.layers.state_session import StateSession, empty_file, opened_folder
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.progress import Progress
from pipeline.sandbox import BuildLimits, InodeRecord, RecordedTree, TracedSession, traced_session
from pipeline.store import Store
from pipeline.trees.scan import image_xattrs


@contextlib.contextmanager
def open_recorded_session(
    layers: Sequence[Layer], lower: Tree, folder: Path, *, store: Store, progress: Progress, architecture: str = ""
) -> Iterator[StateSession]:
    """Open a session of traced commands on `layers`, unpacked in `folder`."""
    root, beside = folder / "tree", folder / "session"
    root.mkdir()
    beside.mkdir()
    tree, unpacked = unpack_recorded(layers, root, store=store, progress=progress)
    with traced_session(tree, beside, limits=BuildLimits(), architecture=architecture) as traced:
        yield RecordedStateSession(traced, tree, lower, unpacked)


@dataclass(frozen=True, slots=True)
class RecordedStateSession:
    """Changes as a recorded tree has them, compared with what was unpacked.

    `restored` are paths of the lower tree that are to be as there, whatever is in the tree, unless changed again.
    """

    session: TracedSession
    tree: RecordedTree
    lower: Tree
    unpacked: Mapping[str, UnpackedState]
    restored: set[str] = field(default_factory=set)

    def stamps(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        folders = {"": True}
        for path in sorted(self.tree.changed):
            # Below a symlink there is nothing of the tree, but maybe files of the machine.
            if not self._is_folder(posixpath.dirname(path), folders):
                continue
            try:
                found = (self.tree.root / path).lstat()
            except FileNotFoundError:
                # An overlay has a whiteout where its directory is still there.
                if self.lower.get(path) is not None:
                    yield path, (0,)
                continue
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            yield path, (*stamp, hash(self.tree.records.of(found)))

    def _is_folder(self, path: str, known: dict[str, bool]) -> bool:
        """Return whether a path is that of a directory, reached without a symlink."""
        if path not in known:
            above = self._is_folder(posixpath.dirname(path), known)
            try:
                known[path] = above and stat.S_ISDIR((self.tree.root / path).lstat().st_mode)
            except FileNotFoundError:
                known[path] = False
        return known[path]

    def discard(self, folder: str, pattern: str) -> None:
        with opened_folder(self.session.files, folder) as here:
            if here is None:
                return
        prefix = f"{folder}/" if folder else ""
        names = {path[len(prefix) :].partition("/")[0] for path in self.tree.changed if path.startswith(prefix)}
        for name in sorted(names):
            if not fnmatch.fnmatchcase(name, pattern):
                continue
            path = f"{prefix}{name}"
            if self.lower.get(path) is not None:
                self.restored.add(path)
            else:
                self.session.files.remove(path)
            self.tree.changed -= {one for one in self.tree.changed if one == path or one.startswith(f"{path}/")}

    def empty_files(self, folder: str, wanted: Callable[[str], bool]) -> None:
        for path in sorted(self.tree.changed):
            if path.startswith(f"{folder}/") and wanted(path):
                above, name = posixpath.split(path)
                with opened_folder(self.session.files, above) as here:
                    if here is not None:
                        empty_file(name, here)

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        changes = LayerChanges(lower, build_time)
        self._walk("", changes)
        return write_layer_entries(changes.result(), name=STATE_LAYER_NAME, store=store, compression=compression)

    def _walk(self, folder: str, changes: LayerChanges) -> None:
        require_depth(folder)
        with os.scandir(self.tree.root / folder) as found:
            items = sorted(found, key=lambda item: item.name)
        present = {item.name for item in items}
        for last in changes.children.get(folder, ()):
            path = posixpath.join(folder, last)
            if last not in present and not self._as_below(path):
                changes.remove(path)
        for item in items:
            path = posixpath.join(folder, item.name)
            require_no_whiteout(path, item.name)
            self._item(path, item, changes)

    def _as_below(self, path: str) -> bool:
        """Return whether a path, or one above it, was restored and not changed since."""
        if path in self.tree.changed:
            return False
        return path in self.restored or any(parent in self.restored for parent in parents_of(path))

    def _changed_below(self, path: str) -> bool:
        return any(one.startswith(f"{path}/") for one in self.tree.changed)

    def _item(self, path: str, item: os.DirEntry[str], changes: LayerChanges) -> None:
        status = item.stat(follow_symlinks=False)
        record = self.tree.records.of(status)
        known = self.unpacked.get(path)
        below = changes.below(path)
        directory = stat.S_ISDIR(status.st_mode)
        as_below = self._as_below(path)
        if as_below and below is None and not self._changed_below(path):
            return  # New, and discarded with its directory.
        if as_below and below is not None:
            changes.directories[path] = below
            if directory and below.kind is EntryKind.DIRECTORY:
                self._walk(path, changes)
            return
        same = (status.st_ino, status.st_ctime_ns) if not directory else (status.st_ino, 0)
        if known is not None and (known.inode, 0 if directory else known.changed_at) == same and known.record == record:
            if directory:
                changes.directories[path] = _entry(path, item, status, record, changes.build_time)
                self._walk(path, changes)
            return
        if stat.S_ISSOCK(status.st_mode):
            return
        entry = _entry(path, item, status, record, changes.build_time)
        if directory:
            changes.add_directory(entry)
            self._walk(path, changes)
            return
        changes.add_leaf(
            entry,
            Path(item.path),
            inode=(status.st_dev, status.st_ino),
            names=status.st_nlink,
            mtime=int(status.st_mtime),
        )


def _entry(path: str, item: os.DirEntry[str], status: os.stat_result, record: InodeRecord, build_time: int) -> Entry:
    kind = image_kind(path, status)
    return Entry(
        path=path,
        kind=kind,
        mode=record.mode,
        uid=record.uid,
        gid=record.gid,
        mtime=build_time,
        size=status.st_size if kind is EntryKind.FILE else 0,
        link=os.readlink(item.path) if kind is EntryKind.SYMLINK else "",  # noqa: PTH115
        xattrs=image_xattrs(record.xattrs),
    )
