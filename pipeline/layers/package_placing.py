"""One package whose entries are written into a tree, by this process or a child of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from pipeline.errors import VerificationError
from pipeline.layers.layer_tree import PassingChecksum, PlacedEntry
from pipeline.layers.segments import Segment, read_package, read_segment
from pipeline.layers.tree_writer import TreeWriter, owners_required
from pipeline.layers.unpacking_children import UnpackingChildren
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.trees import ComposedLayer


@dataclass(frozen=True, slots=True)
class Placed:
    """A package whose entries are in the tree, in the order of its segment.

    `segment` is its own if the store had it.
    """

    entries: tuple[Entry, ...]
    segment: Segment | None


@dataclass(slots=True)
class PackagePlacing:
    """Part `at` of a layer, whose entries are written with `tree`.

    `placed` are those so far, in the order of the segment, and `entries` takes them for who hashes them. `go_on` is
    called before each piece, and raises if no more is wanted.
    """

    composed: ComposedLayer
    at: int
    tree: TreeWriter
    entries: SimpleQueue[PlacedEntry | None]
    store: Store
    go_on: Callable[[], None]
    placed: list[Entry] = field(default_factory=list)

    def unpack(self, root: Path, children: UnpackingChildren | None) -> None:
        """Unpack the package into the tree at `root`, by an idle child if there is one.

        Raises as `read_package` and `TreeWriter.place`.
        """
        if children is None or (child := children.take_idle()) is None:
            self._read_package(self._place)
        elif not children.unpack(child, self.composed, self.at, root, self._take):
            self._require_own_paths()
            self._read_package(partial(self._place_rest, iter(tuple(self.placed))))

    def unpack_segment(self, segment: Segment) -> None:
        """Write what the store's segment of the package has."""
        try:
            read_segment(self.composed.parts[self.at], segment, store=self.store, place=self._place)
        except VerificationError:
            self.store.verify(segment.digest)  # Moves a damaged one aside and raises.
            raise

    def _read_package(self, place: Callable[[Entry, Iterator[memoryview | bytes], str], None]) -> None:
        read_package(self.composed.parts[self.at], store=self.store, place=place)

    def _place(self, entry: Entry, content: Iterator[memoryview | bytes], digest: str) -> None:
        self.go_on()
        checksum = PassingChecksum(self.go_on)
        with owners_required():
            self.tree.place(entry, checksum.passing(content), digest)
        self._note(PlacedEntry(entry, checksum.value))

    def _take(self, written: PlacedEntry, content: str) -> None:
        """Take an entry that a child has written."""
        if content:
            self.tree.content[written.entry.path] = content
            self.tree.files.add(written.entry.path)  # Hard links that are left may name it.
        self._note(written)

    def _note(self, written: PlacedEntry) -> None:
        self.placed.append(written.entry)
        self.entries.put(written)

    # --- where a child has failed ------------------------------------------------------------

    def _place_rest(
        self, told: Iterator[Entry], entry: Entry, content: Iterator[memoryview | bytes], digest: str
    ) -> None:
        """Write an entry, unless a child has told that it has; it may have written others."""
        done = next(told, None)
        if done is None:
            self.tree.remove(entry)
            self._place(entry, content, digest)
            return
        for _ in content:
            self.go_on()
        if done != entry:
            raise VerificationError(
                "layer-malformed",
                f"/{entry.path} has another place in its package than before",
                hint="run the command again",
            )

    def _require_own_paths(self) -> None:
        """Require that nothing but this package has its paths, as what stands there is replaced.

        Raises VerificationError `layer-malformed`.
        """
        every = [*self.composed.directories, *(entry for part in self.composed.parts for _, entry in part.entries)]
        times = Counter(entry.path for entry in every if entry.kind is not EntryKind.OPAQUE)
        for _, entry in self.composed.parts[self.at].entries:
            if times[entry.path] > 1:
                raise self.tree.occurs_twice(entry)
