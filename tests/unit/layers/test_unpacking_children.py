"""Packages that forked children unpack: the same layers, whatever happens to a child, and no child is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.errors import BuildError, VerificationError
from pipeline.layers import lower_folders, package_placing
from pipeline.layers import unpacking_children as module
from pipeline.layers.tree_writer import TreeWriter
from pipeline.layers.unpacking_children import UnpackingChildren, unpacking_children
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store
from pipeline.trees import ComposedLayer
from tests.support.layered_packages import GROUP, ME, TIME, Packages, made
from tests.support.packing_steps import building, drafts, remembered
from tests.support.trees import read_tree

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have two processors, and children for any size, as a command has before it has threads; leave none behind."""
    monkeypatch.setattr(module, "may_fork", lambda: True)
    monkeypatch.setattr(module, "whole_processors", lambda: 2)
    monkeypatch.setattr(module, "_WORTHWHILE", 0)
    BEFORE.clear()
    BEFORE.update(children())
    yield
    assert children() <= BEFORE


@pytest.fixture
def layer(packages: Packages) -> ComposedLayer:
    """Two packages: one of files, links of both kinds, an empty file and a large one; one of a file."""
    files: dict[str, bytes | str | None] = {f"usr/{at}": bytes([at]) * 2000 for at in range(10)}
    files |= {"usr/empty": b"", "usr/deep": None, "usr/deep/large": b"large" * 40_000, "usr/link": "nowhere"}
    found = packages.layer(many=files, one={"usr/other": b"other"})
    part = found.parts[0]
    linked = Entry("usr/z-hard", EntryKind.HARDLINK, 0o640, ME, GROUP, mtime=TIME, link="usr/3")
    return replace(found, parts=(replace(part, entries=(*part.entries, (200, linked))), found.parts[1]))


def children() -> set[str]:
    """Return the numbers of this process's children, zombies too."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


BEFORE: set[str] = set()
"""Children of before the test, of other tests."""


@contextmanager
def built(store: Store, *layers: ComposedLayer) -> Iterator[Any]:
    with unpacking_children(layers, Compression.GZIP, store) as some:
        assert some.count == 1
        with building(store, *layers, children=some) as made_layers:
            yield made_layers


def in_child(monkeypatch: pytest.MonkeyPatch, does: Callable[[module._Telling, Entry], None]) -> None:
    """Have something done in a child before it writes an entry of the package that it was given."""
    real = module._Telling.place

    def place(self: module._Telling, entry: Entry, *given: Any) -> None:
        does(self, entry)
        real(self, entry, *given)

    monkeypatch.setattr(module._Telling, "place", place)


def elsewhere(store: Store, packages: Packages, folder: Path) -> Store:
    """Return another store that has the packages alone."""
    other = Store.open(folder / "elsewhere")
    for checksum in packages.files:
        assert other.put(store.blob(checksum).read_bytes()) == checksum
    return other


def test_what_a_child_unpacks_is_the_same_and_this_process_does_not_read_it(
    store: Store, packages: Packages, layer: ComposedLayer, tmp_path: Path
) -> None:
    alone = made(elsewhere(store, packages, tmp_path), layer)
    packages.read.clear()
    with built(store, layer) as (one,):
        assert children() <= BEFORE, "they end with the trees"
        tree = read_tree(lower_folders([one], store=store)[0])
    assert one.layer == alone
    assert len(packages.read) < 2, "the other package was read by the child"
    assert tree["usr/link"] and (tree["usr/3"], tree["usr/z-hard"]) and remembered(store, layer) == [True, True]
    assert read_tree(lower_folders([alone], store=Store.open(tmp_path / "elsewhere"))[0]) == tree


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise MemoryError


ENDINGS: dict[str, Callable[[], None]] = {"killed": _kill, "raises": _raise, "prints": lambda: print("said")}


@pytest.mark.parametrize("at_once", [1, 64], ids=["told of each", "told of none"])
@pytest.mark.parametrize(
    ("entry", "ending"),
    [
        *((path, "killed") for path in ("usr/9", "usr/deep/large", "usr/z-hard", "usr/empty", "usr/link")),
        ("usr/3", "raises"),
        ("usr/3", "prints"),
    ],
)
def test_what_a_child_leaves_is_unpacked_here(
    store: Store,
    packages: Packages,
    layer: ComposedLayer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    entry: str,
    at_once: int,
) -> None:
    """It ends before an entry, of which some bytes may stand in the tree, and others of which it has not told."""
    first = replace(layer, parts=layer.parts[:1])  # The child's, and no other.
    alone = made(elsewhere(store, packages, tmp_path), first)
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    parent = os.getpid()

    def end(telling: module._Telling, wanted: Entry) -> None:
        if wanted.path == entry and os.getpid() != parent:
            if wanted.kind is EntryKind.FILE:
                telling._tree.place(replace(wanted, size=4), iter([b"some"]))
            ENDINGS[ending]()

    in_child(monkeypatch, end)
    with built(store, first) as (one,):
        tree = read_tree(lower_folders([one], store=store)[0])
    assert one.layer == alone
    assert read_tree(lower_folders([alone], store=Store.open(tmp_path / "elsewhere"))[0]) == tree
    assert not drafts(store)


@pytest.mark.parametrize("said", [b"x" * 40, module._WRITTEN.pack(9999, 0, bytes(32)), b"short"])
def test_a_child_that_tells_nonsense_is_not_believed(
    store: Store, packages: Packages, layer: ComposedLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    alone = made(elsewhere(store, packages, tmp_path), layer)
    parent = os.getpid()

    def tell(telling: module._Telling, _: Entry) -> None:
        if os.getpid() != parent:
            os.write(telling._writer, said)
            os._exit(0)

    in_child(monkeypatch, tell)
    with built(store, layer) as (one,):
        assert one.layer.diff_id == alone.diff_id


def test_a_file_that_is_not_what_a_child_has_told_is_found(
    store: Store, layer: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRC-32 that it tells is compared with what the hash of the tar reads."""
    parent = os.getpid()

    def damage(telling: module._Telling, entry: Entry) -> None:
        if os.getpid() != parent and entry.path == "usr/7":
            telling._written[-1] = module._WRITTEN.pack(*module._WRITTEN.unpack(telling._written[-1])[:1], 1, bytes(32))

    in_child(monkeypatch, damage)
    first = replace(layer, parts=layer.parts[:1])
    with pytest.raises(VerificationError, match=r"has other bytes in its tree than were written"), built(store, first):
        pass
    assert not drafts(store)


def test_an_error_is_this_processs(store: Store, layer: ComposedLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TreeWriter.place

    def place(self: TreeWriter, entry: Entry, *given: Any) -> None:
        if entry.path == "usr/7":
            raise BuildError("device-node", f"in {os.getpid()}")
        real(self, entry, *given)

    monkeypatch.setattr(TreeWriter, "place", place)
    with pytest.raises(BuildError) as caught, built(store, replace(layer, parts=layer.parts[:1])):
        pass
    assert caught.value.problems[0].message == f"in {os.getpid()}"
    assert not drafts(store)


def test_a_failure_elsewhere_waits_for_no_child(
    store: Store, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hangs, the other package fails: the packing ends, and so does the child."""
    wanted = packages.layer(a={"usr/a": b"a" * 1000}, b={"usr/b": b"b" * 1000})
    parent = os.getpid()
    in_child(monkeypatch, lambda *_: time.sleep(600) if os.getpid() != parent else None)

    def fail(*_: Any, **__: Any) -> None:
        raise BuildError("device-node", "of the other")

    monkeypatch.setattr(package_placing, "read_package", fail)
    with pytest.raises(BuildError, match="of the other"), built(store, wanted):
        pass
    assert not drafts(store)


def test_a_stored_segment_is_read_here(store: Store, packages: Packages, layer: ComposedLayer) -> None:
    made(store, replace(layer, parts=layer.parts[:1]))
    packages.read.clear()
    with unpacking_children([layer], Compression.GZIP, store) as some, building(store, layer, children=some) as (one,):
        assert one.layer.diff_id
    assert packages.read in ([], [layer.parts[1].checksum])


@pytest.mark.parametrize("why", ["small", "one processor", "threads", "an earlier tree", "no child to be had"])
def test_there_are_none_where_they_would_not_help_or_cannot_be_had(
    store: Store, layer: ComposedLayer, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def refuse() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    match why:
        case "small":
            monkeypatch.setattr(module, "_WORTHWHILE", 4 << 20)
        case "one processor":
            monkeypatch.setattr(module, "whole_processors", lambda: 1)
        case "threads":
            monkeypatch.setattr(module, "may_fork", lambda: False)
        case "an earlier tree":
            made(store, layer)
            monkeypatch.setattr(module, "_WORTHWHILE", 1)
        case _:
            monkeypatch.setattr(os, "fork", refuse)
    opened = sorted(Path("/proc/self/fd").iterdir())
    with unpacking_children([layer], Compression.GZIP, store) as some:
        assert some.count == 0 and sorted(Path("/proc/self/fd").iterdir()) == opened
        with building(store, layer, children=some) as (one,):
            assert one.layer.diff_id


def test_several_children_write_one_tree(
    store: Store, packages: Packages, layer: ComposedLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = made(elsewhere(store, packages, tmp_path), layer)
    monkeypatch.setattr(module, "whole_processors", lambda: 16)
    with unpacking_children([layer], Compression.GZIP, store) as some:
        assert some.count == 3
        packages.read.clear()
        with building(store, layer, children=some) as (one,):
            assert one.layer.diff_id == alone.diff_id
    assert not packages.read


def test_they_end_with_a_block_that_is_interrupted(store: Store, layer: ComposedLayer) -> None:
    with pytest.raises(KeyboardInterrupt), unpacking_children([layer], Compression.GZIP, store) as some:
        assert some.count == 1 and len(children() - BEFORE) == 1
        raise KeyboardInterrupt
    assert not UnpackingChildren().count


@pytest.mark.parametrize("child", [True, False])
@pytest.mark.parametrize("twice", ["usr/link", "usr/3", "usr/deep"])
def test_a_path_that_occurs_twice_is_refused_as_without_a_child(
    store: Store, packages: Packages, twice: str, child: bool
) -> None:
    """What a child has failed on is not replaced, whoever has written it."""
    files: dict[str, bytes | str | None] = {f"usr/{at}": bytes([at]) * 2000 for at in range(10)}
    found = packages.layer(many={**files, "usr/link": "one", "usr/deep": None}, one={"usr/other": "another"})
    many, one = found.parts
    moved = tuple((index, replace(entry, path=twice)) for index, entry in one.entries)
    wanted = replace(found, parts=(many, replace(one, entries=moved)))
    with unpacking_children([wanted], Compression.GZIP, store) as some:
        given = {"children": some} if child else {}
        with pytest.raises(VerificationError, match=f"/{twice} appears twice"), building(store, wanted, **given):
            pass
    assert not drafts(store)


def test_they_end_where_no_layer_has_to_be_made(
    store: Store, layer: ComposedLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store may have lost what it knew of an earlier tree."""
    made(store, layer)
    monkeypatch.setattr(module, "may_have_earlier_tree", lambda *_: False)
    with built(store, layer) as (one,):
        assert one.reused and children() <= BEFORE


def test_a_child_ends_with_whoever_takes_what_it_tells(store: Store, layer: ComposedLayer, tmp_path: Path) -> None:
    (tmp_path / "usr/deep").mkdir(parents=True)

    def take(*_: object) -> None:
        assert len(children() - BEFORE) == 1
        raise MemoryError

    with unpacking_children([layer], Compression.GZIP, store) as some, pytest.raises(MemoryError):
        child = some.take_idle()
        assert child is not None and some.take_idle() is None
        some.unpack(child, layer, 0, tmp_path, take)
    assert children() <= BEFORE
