"""Children of this process that unpack packages beside its threads.

Creating a file, giving it its owner and times, and looking at what comes next is Python's own work, which one thread of
a process does at a time, so threads wait for each other where files are small. A child has a lock of its own. It is
forked before there are threads (`forked_child`) and has the composed layers in memory, so it is told numbers alone, and
tells of each entry that it has written, in the order of the segment. Where it fails, whatever the reason, this process
unpacks the rest of the package itself: errors are found where they are found without a child.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from pipeline.compression import Compression
from pipeline.forked_child import end_child, fork_child, kill_child, may_fork, signals_held
from pipeline.layers.earlier_tree import may_have_earlier_tree
from pipeline.layers.layer_tree import PassingChecksum, PlacedEntry
from pipeline.layers.planned_layer import part_size
from pipeline.layers.segments import read_package
from pipeline.layers.tree_writer import TreeWriter
from pipeline.model.tree import Entry, EntryKind
from pipeline.processors import whole_processors
from pipeline.progress import QUIET, Progress, undrawn
from pipeline.store import Store
from pipeline.trees import ComposedLayer, Part

_MOST: Final = 3
"""Children at most: what they write is hashed in this process."""
_WORTHWHILE: Final = 32 << 20
"""Bytes of content from which on children are made: to make one takes some milliseconds."""

_REQUEST: Final = struct.Struct("<III")
"""The places of a layer, and of a part in it, and how many bytes of the tree's path follow."""
_WRITTEN: Final = struct.Struct("<II32s")
"""The place of an entry in its part, the CRC-32 of its content and, of a file, its sha256."""
_END: Final = _WRITTEN.pack(0xFFFFFFFF, 0, bytes(32))
_AT_ONCE: Final = 64
"""Entries that are told of together, unless they have a MiB of content before."""
_CONTENT_AT_ONCE: Final = 1 << 20
_READ: Final = 1 << 16

EntryTaker: TypeAlias = "Callable[[PlacedEntry, str], None]"
"""Takes an entry that a child has written, and the sha256 of its content in hex ("" if it has none)."""


class UnpackingChildren:
    """Children that unpack packages of `layers`, each one package at a time; there may be none."""

    def __init__(self, layers: Sequence[ComposedLayer] = ()) -> None:
        self._layers = layers
        self._children: list[UnpackingChild] = []
        self._idle: deque[UnpackingChild] = deque()

    @property
    def count(self) -> int:
        """The number of children."""
        return len(self._children)

    def fork(self, store: Store) -> None:
        """Make one more child, where signals are held.

        Raises OSError where the system gives none.
        """
        child = UnpackingChild.forked(self._layers, store)
        self._children.append(child)
        self._idle.append(child)

    def take_idle(self) -> UnpackingChild | None:
        """Return a child that nobody else will ask, for `unpack`; None if all have work."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def unpack(self, child: UnpackingChild, composed: ComposedLayer, at: int, root: Path, take: EntryTaker) -> bool:
        """Have part `at` of a layer written into the tree at `root`, whose directories are there.

        Return False if the child has failed, after it wrote the entries that `take` was given, and maybe others: it
        has ended then.
        """
        part = composed.parts[at]
        try:
            number = next(number for number, layer in enumerate(self._layers) if layer is composed)
            child.ask(number, at, root)
            for place, checksum, content in child.written():
                take(PlacedEntry(part.entries[place][1], checksum), content)
        except (OSError, EOFError, LookupError, StopIteration):
            child.end()  # Nothing else writes there when this process does.
            return False
        except BaseException:
            child.end()
            raise
        self._idle.append(child)
        return True

    def kill(self) -> None:
        """Kill the children; who waits for one goes on."""
        for child in self._children:
            child.kill()

    def end(self) -> None:
        """Kill the children, and wait for their end.

        To be called again if a signal's handler has raised something in it.
        """
        self._idle.clear()
        for child in self._children:
            child.end()


@contextlib.contextmanager
def unpacking_children(
    layers: Sequence[ComposedLayer], compression: Compression, store: Store, progress: Progress = QUIET
) -> Iterator[UnpackingChildren]:
    """Have children for the time of the block, if there is much to unpack.

    There are none where this process may make none, or the system gives none. A layer of which the store has an earlier
    tree is not counted: little of it will be unpacked, if any.
    """
    children = UnpackingChildren(layers)
    try:
        new = [layer for layer in layers if not may_have_earlier_tree(layer, compression, store)]
        if sum(part_size(part) for layer in new for part in layer.parts) >= _WORTHWHILE:
            with undrawn(progress), signals_held(), contextlib.suppress(OSError):
                for _ in range(min(_MOST, whole_processors() - 1) if may_fork() else 0):
                    children.fork(store)
        yield children
    finally:
        try:
            children.end()
        finally:  # A second signal may have come before it had begun.
            children.end()


class UnpackingChild:
    """One child, as this process sees it; for `UnpackingChildren`."""

    def __init__(self, pid: int, reader: int, writer: int) -> None:
        self._pid, self._reader, self._writer = pid, reader, writer
        self._lock = threading.Lock()

    @classmethod
    def forked(cls, layers: Sequence[ComposedLayer], store: Store) -> UnpackingChild:
        """Make a child.

        Raises OSError where the system gives no pipe or no child."""
        handles: list[int] = []
        try:
            handles += (*os.pipe(), *os.pipe())
            asked, asking, told, telling = handles
            pid = fork_child(lambda: _serve(layers, store, asked, telling), asked, telling)
        except BaseException:
            for handle in handles:
                os.close(handle)
            raise
        os.close(asked)
        os.close(telling)
        return cls(pid, told, asking)

    def ask(self, layer: int, part: int, root: Path) -> None:
        """Ask for a part of a layer to be written into the tree at `root`.

        Raises OSError if the child has ended.
        """
        path = os.fsencode(root)
        _write(self._writer, _REQUEST.pack(layer, part, len(path)) + path)

    def written(self) -> Iterator[tuple[int, int, str]]:
        """Yield each entry's place, checksum and sha256 in hex ("" for none).

        Raises EOFError if the child ends before the last one.
        """
        rest = b""
        while True:
            data = os.read(self._reader, _READ)
            if not data:
                raise EOFError
            data = rest + data
            whole = len(data) - len(data) % _WRITTEN.size
            rest = data[whole:]
            ended = data[:whole].endswith(_END)
            for place, checksum, content in _WRITTEN.iter_unpack(data[: whole - ended * len(_END)]):
                yield place, checksum, content.hex() if any(content) else ""
            if ended:
                return

    def kill(self) -> None:
        """Kill the child, which is waited for later."""
        with self._lock:
            if self._pid:
                kill_child(self._pid)

    def end(self) -> None:
        """Kill the child, if it was not yet, and wait for its end."""
        with signals_held(), self._lock:
            if self._pid:
                end_child(self._pid)
                os.close(self._reader)
                os.close(self._writer)
                self._pid = 0


# --- in the child ----------------------------------------------------------------------------


def _serve(layers: Sequence[ComposedLayer], store: Store, reader: int, writer: int) -> None:
    """Unpack what is asked for until nobody can ask any more."""
    trees: dict[Path, TreeWriter] = {}
    while request := _read(reader, _REQUEST.size):
        number, at, length = _REQUEST.unpack(request)
        layer, root = layers[number], Path(os.fsdecode(_read(reader, length)))
        if root not in trees:
            trees[root] = _tree(layer, root)
        with trees[root].beside() as tree:
            telling = _Telling(layer.parts[at], tree, writer)
            read_package(layer.parts[at], store=store, place=telling.place)
            telling.end()


def _tree(layer: ComposedLayer, root: Path) -> TreeWriter:
    """Return a writer into a layer's tree, whose directories its parent has made."""
    tree = TreeWriter.opened(root, layer.name)
    for entry in layer.directories:
        if entry.kind is EntryKind.DIRECTORY:
            tree.directories[entry.path] = entry
    return tree


class _Telling:
    """A child that writes a part's entries and tells of them."""

    def __init__(self, part: Part, tree: TreeWriter, writer: int) -> None:
        self._places = {entry.path: place for place, (_, entry) in enumerate(part.entries)}
        self._tree, self._writer = tree, writer
        self._written: list[bytes] = []
        self._size = 0

    def place(self, entry: Entry, content: Iterator[memoryview | bytes], digest: str) -> None:
        """Write an entry, as an `EntryWriter`."""
        checksum = PassingChecksum(lambda: None)
        self._tree.place(entry, checksum.passing(content), digest)
        found = bytes.fromhex(self._tree.content.get(entry.path, ""))
        self._written.append(_WRITTEN.pack(self._places[entry.path], checksum.value, found))
        self._size += entry.size
        if len(self._written) == _AT_ONCE or self._size >= _CONTENT_AT_ONCE:
            self._tell()

    def end(self) -> None:
        """Tell that no more entries come."""
        self._tree.content.clear()  # It was needed for hard links.
        self._written.append(_END)
        self._tell()

    def _tell(self) -> None:
        _write(self._writer, b"".join(self._written))
        self._written.clear()
        self._size = 0


def _read(handle: int, size: int) -> bytes:
    """Read exactly `size` bytes; b"" where the other side has ended."""
    data = b""
    while len(data) < size:
        piece = os.read(handle, size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
