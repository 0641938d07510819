"""The tree on which the state layer is made, and its changes: an overlay or a table."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import posixpath
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Protocol

from pipeline.compression import Compression
from pipeline.layers.layer_changes import LayerChanges, parents_of
from pipeline.layers.pack_layer import (
    image_kind,
    pack_directory,
    require_depth,
    require_no_whiteout,
    write_layer_entries,
)
from pipeline.layers.recorded_layers import UnpackedState, unpack_recorded
from pipeline.layers.unpack_layer import unpack_to_store
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.progress import Progress
from pipeline.sandbox import (
    BuildLimits,
    BuildSession,
    CommandSession,
    InodeRecord,
    RecordedTree,
    SandboxRegistry,
    TracedSession,
    build_session,
    traced_session,
)
from pipeline.store import Store
from pipeline.trees.scan import image_xattrs

_LAYER_NAME = "state"


class StateSession(Protocol):
    """A session of commands on the layers of an image, and the changes to them."""

    @property
    def session(self) -> CommandSession:
        """The session that runs commands."""
        ...

    def stamps(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield each changed path with numbers that are others after another change."""
        ...

    def discard(self, folder: str, pattern: str) -> None:
        """Undo the changes to what is directly in `folder` and whose name matches."""
        ...

    def changed_files(self, folder: str) -> Iterator[tuple[str, Path]]:
        """Yield the changed regular files below `folder`, each with its path for this process."""
        ...

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        """Pack the changes to `lower` into a layer; see `pack_directory`."""
        ...


@contextlib.contextmanager
def open_state_session(
    layers: Sequence[Layer],
    lower: Tree,
    folder: Path,
    *,
    sandboxes: SandboxRegistry | None,
    store: Store,
    progress: Progress,
    architecture: str = "",
) -> Iterator[StateSession]:
    """Open a session on `layers`, whose tree is `lower`.

    Commands run in containers, or traced where `sandboxes` is None. `folder` is an empty one of the build's own.
    Raises as `unpack_to_store`, `build_session` and `traced_session` do.
    """
    if sandboxes is not None:
        lowers = [unpack_to_store(layer, store=store, progress=progress) for layer in layers]
        with build_session(
            lowers, sandboxes=sandboxes, label=_LAYER_NAME, limits=BuildLimits(), architecture=architecture
        ) as session:
            yield OverlayStateSession(session)
        return
    root, beside = folder / "tree", folder / "session"
    root.mkdir()
    beside.mkdir()
    tree, unpacked = unpack_recorded(layers, root, store=store, progress=progress)
    with traced_session(tree, beside, limits=BuildLimits(), architecture=architecture) as traced:
        yield RecordedStateSession(traced, tree, lower, unpacked)


@dataclass(frozen=True, slots=True)
class OverlayStateSession:
    """Changes as an overlay's upper directory has them."""

    session: BuildSession

    def stamps(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        top = self.session.upper
        for path in top.rglob("*"):
            found = path.lstat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
            yield str(path.relative_to(top)), stamp

    def discard(self, folder: str, pattern: str) -> None:
        place = self.session.upper / folder
        if place.is_symlink() or not place.is_dir():
            return
        for entry in sorted(place.iterdir()):
            if fnmatch.fnmatchcase(entry.name, pattern):
                _remove(entry)

    def changed_files(self, folder: str) -> Iterator[tuple[str, Path]]:
        for path in sorted((self.session.upper / folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(self.session.upper)), path

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        return pack_directory(
            self.session.upper,
            name=_LAYER_NAME,
            lower=lower,
            shift=self.session.shift,
            build_time=build_time,
            store=store,
            compression=compression,
        )


def _remove(path: Path) -> None:
    """Remove a path from the upper directory, so that the lower one is visible again, if any."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


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
        for path in sorted(self.tree.changed):
            place = self.tree.root / path
            try:
                found = place.lstat()
            except (FileNotFoundError, NotADirectoryError):
                # An overlay has a whiteout where its directory is still there.
                if self.lower.get(path) is not None and place.parent.is_dir():
                    yield path, (0,)
                continue
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            yield path, (*stamp, hash(self.tree.records.of(found)))

    def discard(self, folder: str, pattern: str) -> None:
        if (self.tree.root / folder).is_symlink():
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

    def changed_files(self, folder: str) -> Iterator[tuple[str, Path]]:
        for path in sorted(self.tree.changed):
            place = self.tree.root / path
            if path.startswith(f"{folder}/") and place.is_file() and not place.is_symlink():
                yield path, place

    def pack(self, lower: Tree, *, build_time: int, store: Store, compression: Compression) -> Layer:
        changes = LayerChanges(lower, build_time)
        self._walk("", changes)
        return write_layer_entries(changes.result(), name=_LAYER_NAME, store=store, compression=compression)

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

    def _item(self, path: str, item: os.DirEntry[str], changes: LayerChanges) -> None:
        status = item.stat(follow_symlinks=False)
        record = self.tree.records.of(status)
        known = self.unpacked.get(path)
        below = changes.below(path)
        directory = stat.S_ISDIR(status.st_mode)
        if self._as_below(path) and below is not None:
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
