"""The entries of a segment that is compressed, their content read from the layer's tree.

A tree is removed where its seal is broken, or where another build finds damage in it, also while this one reads it. The
rest is then read from the package again: the order is the same, and the blob is compared with what was in the tree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial

from pipeline.errors import VerificationError
from pipeline.layers.segments import package_entries
from pipeline.layers.tree_writer import TreeWriter
from pipeline.model.tree import Entry, EntryKind
from pipeline.packages import errors_about
from pipeline.store import Store
from pipeline.trees import Part

Content = tuple[Entry, Callable[[memoryview], int]]
"""An entry, and what reads its content (`ChunkWriter.file`)."""


def segment_contents(
    part: Part, entries: tuple[Entry, ...], tree: TreeWriter, store: Store, go_on: Callable[[], None]
) -> Generator[Content]:
    """Yield the entries of a package, in the order of its segment.

    Each has to be read before the next is asked for.
    `go_on` is called before each piece, and raises if no more is wanted. Raises VerificationError `layer-malformed` if
    a file of the tree is shorter than it was; of a tree that was removed as `package_entries` does.
    """
    for at, entry in enumerate(entries):
        go_on()
        if entry.kind is not EntryKind.FILE or not entry.size:
            yield entry, lambda room: 0
            continue
        try:
            handle = tree.open_file(entry)
        except (FileNotFoundError, NotADirectoryError):
            yield from _rest_of_package(part, entries, at, store, go_on)
            return
        try:
            yield entry, partial(_read, handle, entry, go_on)
        finally:
            os.close(handle)


def _read(handle: int, entry: Entry, go_on: Callable[[], None], room: memoryview) -> int:
    go_on()
    size = os.readv(handle, [room])
    if not size:
        raise VerificationError("layer-malformed", f"/{entry.path} was cut off in its tree")
    return size


def _rest_of_package(
    part: Part, entries: tuple[Entry, ...], first: int, store: Store, go_on: Callable[[], None]
) -> Generator[Content]:
    with contextlib.closing(package_entries(part, store=store)) as found:
        for at, (entry, content) in enumerate(found):
            go_on()
            if entries[at : at + 1] != (entry,):
                raise VerificationError(
                    "layer-malformed",
                    f"the tree of {part.nevra} was removed while it was read, and its package has /{entry.path} in"
                    " another place",
                    hint="run the command again",
                )
            if at >= first:
                yield entry, _reader(part, content, store, go_on)


def _reader(
    part: Part, content: Iterator[memoryview], store: Store, go_on: Callable[[], None]
) -> Callable[[memoryview], int]:
    """Return what reads the pieces of a file."""
    left = memoryview(b"")

    def read(room: memoryview) -> int:
        nonlocal left
        go_on()
        while not left:
            with errors_about(part.nevra, store.blob(part.checksum)):
                left = memoryview(next(content, b""))
            if not left:
                return 0
        size = min(len(left), len(room))
        room[:size] = left[:size]
        left = left[size:]
        return size

    return read
