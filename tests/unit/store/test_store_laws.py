"""The store as a state machine: whatever is put, planted, spoiled, collected and checked in whatever order, what it
gives is what was put into it, or nothing."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.digest import DiffId, Digest
from pipeline.store import Store, check_store, collect_garbage, recall_seen, remember_seen, seen_record
from tests.support.examples import examples

CONTENTS = [b"", b"one", b"two", b"three" * 1000]
NAMES = [Digest.of(text) for text in (b"a", b"b", b"c")]
LAYERS = [DiffId.of(text) for text in (b"x", b"y")]
VALUES = [None, 0, "some text", {"digest": "x", "size": 1}, [1, [2]]]

contents, names, layers = (st.sampled_from(one) for one in (CONTENTS, NAMES, LAYERS))


def seen(name: Digest) -> Digest:
    """The name of a record that is to last, which is no result's."""
    return Digest.of(name.hex.encode())


def spoil(path: Path, how: int) -> None:
    """Change a file's bytes, and go on until the kernel's clock shows it."""
    before = path.stat().st_ctime_ns
    data = bytearray(path.read_bytes()) or bytearray(b"x")
    data[how % len(data)] ^= 1 << how % 8
    while True:
        path.write_bytes(data)
        if path.stat().st_ctime_ns != before:
            return


class StoreLaws(RuleBasedStateMachine):
    """`blobs`, `results` and `trees` are what is whole in the store."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-laws-"))
        self.told: list[str] = []
        self.blobs: set[Digest] = set()
        self.results: dict[Digest, object] = {}
        self.trees: dict[DiffId, str] = {}
        self.seen: dict[Digest, object] = {}
        self.count = itertools.count()
        self.store = self.open("store")
        self.store.seal(b"")  # There is a key, as in any store that was used.
        self.other = self.open("other")

    def open(self, name: str) -> Store:
        return Store.open(self.folder / name, tell=self.told.append)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # --- what a build does --------------------------------------------------------------------

    @rule(data=contents)
    def put(self, data: bytes) -> None:
        self.blobs.add(self.store.put(data))

    @rule(name=names, value=st.sampled_from(VALUES))
    def remember(self, name: Digest, value: object) -> None:
        self.store.remember(name, value)
        self.results[name] = value

    @rule(name=names, value=st.sampled_from(VALUES))
    def see(self, name: Digest, value: object) -> None:
        remember_seen(self.store, seen(name), value)
        self.seen[name] = value

    @rule(name=names, value=st.integers(1, 99))
    def see_as_earlier_versions(self, name: Digest, value: int) -> None:
        self.store.remember(seen(name), value)
        self.seen[name] = value

    @rule(name=layers)
    def unpack(self, name: DiffId) -> None:
        if self.store.trees.kept(name) is None:
            self.trees[name] = f"{next(self.count)}"
            self.keep(self.store, name, self.trees[name])

    def keep(self, store: Store, name: DiffId, text: str) -> Path:
        with store.temporary("tree") as folder:
            (folder / "tree" / "root" / "bin").mkdir(parents=True)
            (folder / "tree" / "root" / "bin" / "sh").write_text(text)
            return store.trees.keep(folder / "tree", name)

    @rule()
    def another_process(self) -> None:
        self.store = self.open("store")

    # --- what others and the disk do ------------------------------------------------------------

    @rule(data=contents, how=st.integers(0, 9999))
    def spoil_blob(self, data: bytes, how: int) -> None:
        digest = Digest.of(data)
        if digest in self.blobs:
            spoil(self.store.blob(digest), how)
            self.blobs.discard(digest)

    @rule(name=names, how=st.integers(0, 9999))
    def spoil_result(self, name: Digest, how: int) -> None:
        if name in self.results:
            spoil(self.store.result(name), how)
            del self.results[name]

    @rule(name=names, how=st.integers(0, 9999))
    def spoil_seen(self, name: Digest, how: int) -> None:
        if name in self.seen and recall_seen(self.store, seen(name)) is not None:  # Moved to its place.
            spoil(seen_record(self.store, seen(name)), how)
            assert recall_seen(self.store, seen(name)) is None  # Put aside: `collect_all` would leave it.
            del self.seen[name]

    @rule(name=layers, seal=st.booleans(), how=st.integers(0, 9999))
    def spoil_tree(self, name: DiffId, seal: bool, how: int) -> None:
        if name in self.trees:
            folder = self.store.trees.path(name)
            spoil(folder / "seal" if seal else folder / "root" / "bin" / "sh", how)
            del self.trees[name]

    @rule(name=names, bare=st.booleans())
    def plant_result(self, name: Digest, bare: bool) -> None:
        path = self.store.result(name)
        path.parent.mkdir(exist_ok=True)
        self.other.remember(name, "a forgery")
        path.write_bytes(json.dumps("a forgery").encode() if bare else self.other.result(name).read_bytes())
        self.results.pop(name, None)

    @rule(one=names, two=names)
    def move_result(self, one: Digest, two: Digest) -> None:
        if one in self.results and one != two:
            self.store.result(two).parent.mkdir(exist_ok=True)
            self.store.result(one).rename(self.store.result(two))
            del self.results[one]
            self.results.pop(two, None)

    @rule(data=contents, link=st.booleans())
    def plant_blob(self, data: bytes, link: bool) -> None:
        path = self.store.blob(Digest.of(data))
        path.unlink(missing_ok=True)
        if link:
            path.symlink_to("/etc/passwd")
        else:
            path.write_bytes(b"planted" + data)
        self.blobs.discard(Digest.of(data))

    @rule(name=layers)
    def plant_tree(self, name: DiffId) -> None:
        if not os.path.lexists(self.store.trees.path(name)):
            self.keep(self.other, name, "planted").rename(self.store.trees.path(name))

    # --- looking after it ---------------------------------------------------------------------

    @rule(data=contents)
    def collect_all(self, data: bytes) -> None:
        kept = Digest.of(data)
        collect_garbage(self.store, time.time() + 10, [kept])
        self.blobs &= {kept}
        self.results.clear()
        self.trees.clear()
        held = [path for kind in ("results", "trees", "locks") for path in (self.store.root / kind).rglob("*")]
        assert {path.name for path in held if path.is_file()} == {seen(name).hex for name in self.seen}

    @rule()
    def collect_none(self) -> None:
        collect_garbage(self.store, 1000.0)

    @rule()
    def fsck(self) -> None:
        before = len(self.told)
        found = check_store(self.store)
        assert len(self.told) - before == len(found.damaged)
        assert {path.name for path in (self.store.root / "blobs").iterdir()} == {one.hex for one in self.blobs}
        assert {path.name for path in (self.store.root / "trees").iterdir()} == {one.hex for one in self.trees}
        assert check_store(self.store).damaged == ()

    # --- laws -----------------------------------------------------------------------------------

    @invariant()
    def gives_what_was_put_or_nothing(self) -> None:
        if not hasattr(self, "store"):
            return
        recalls = next(self.count) % 2  # To recall a record moves it: earlier versions' are collected unmoved, too.
        for name in NAMES:
            assert self.store.recall(name) == self.results.get(name)
            assert not recalls or recall_seen(self.store, seen(name)) == self.seen.get(name)
        for data in CONTENTS:
            digest = Digest.of(data)
            assert self.store.sound(digest) == (digest in self.blobs)
            if digest in self.blobs:
                assert self.store.read(digest, limit=10_000) == data
        for layer in LAYERS:
            kept = self.store.trees.kept(layer)
            assert (kept is not None) == (layer in self.trees)
            if kept is not None:
                assert (kept / "root" / "bin" / "sh").read_text() == self.trees[layer]
        assert list((self.store.root / "tmp").iterdir()) == []


TestStoreLaws = StoreLaws.TestCase
TestStoreLaws.settings = settings(
    max_examples=examples(25), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
