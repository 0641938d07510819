"""`gc` and `fsck` look at all that the store holds, at nothing else, and leave a store that works."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import DiffId, Digest
from pipeline.errors import ResolutionError
from pipeline.model.lock import Lock
from pipeline.oci import write_layout
from pipeline.prepare import locked_packages
from pipeline.resolve import format_lock, write_lock
from pipeline.store import (
    Store,
    check_store,
    collect_garbage,
    store_usage,
)
from tests.support.tiny_image import tiny

OLD = 1_000_000_000.0


def keep_tree(store: Store, name: str = "tar") -> Path:
    with store.temporary("tree") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        (folder / "tree" / "root" / "file").write_text("content")
        return store.trees.keep(folder / "tree", DiffId.of(name.encode()))


def age(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


# --- gc --------------------------------------------------------------------------------------------------


def test_locks_that_nobody_holds_are_collected_and_held_ones_are_not(store: Store) -> None:
    for number in range(130):
        with store.locked(f"night {number}"):
            pass
    with store.locked("held"):
        collect_garbage(store, time.time() + 10)
        assert len(list((store.root / "locks").iterdir())) == 1
    collect_garbage(store, time.time() + 10)
    assert list((store.root / "locks").iterdir()) == []


def test_a_lock_holds_while_its_files_are_collected(store: Store, tmp_path: Path) -> None:
    """Four processes count in a file under a lock, while a fifth collects: no count is lost."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = f"""
from pathlib import Path
from pipeline.store import Store
store, counter = Store.open(Path({str(store.root)!r})), Path({str(counter)!r})
for _ in range(100):
    with store.locked("counter"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    children = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    while any(child.poll() is None for child in children):
        collect_garbage(store, OLD)
    assert [child.wait() for child in children] == [0] * 4
    assert counter.read_text() == "400"


def test_everything_that_was_not_used_goes(store: Store) -> None:
    store.put(b"blob")
    store.remember(Digest.of(b"step"), {"size": 1})
    keep_tree(store)
    (store.metadata / "partial").mkdir()
    for name in ("old", "young"):
        (store.metadata / "partial" / name).write_bytes(b"half")
    store.quarantine(store.blob(store.put(b"bad")), "it was damaged")
    age(store.root)
    os.utime(store.metadata / "partial" / "young")
    done = collect_garbage(store, OLD + 1)
    assert all(done.freed[kind] > 0 for kind in ("blobs", "results", "trees", "metadata", "quarantine"))
    held = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}
    assert {path for path in held if not path.startswith(("users/", "key"))} == {"metadata/partial/young"}


def test_a_blob_is_used_when_it_is_found_sound(store: Store) -> None:
    """Its own times may not tell: nothing is read where it was hashed before, and some file systems note no reading."""
    digest = store.put(b"blob")
    age(store.root)
    store.verify(digest)
    os.utime(store.blob(digest), (OLD, OLD))
    store.sound(digest)
    age(store.root)
    assert store.sound(digest)
    collect_garbage(store, OLD + 1)
    assert store.has(digest)


def test_what_another_process_may_use_is_left(store: Store) -> None:
    program = f"""
from pathlib import Path
from pipeline.store import Store
store = Store.open(Path({str(store.root)!r}))
print("ready", flush=True)
input()
"""
    digest, old = store.put(b"in use"), store.put(b"old")
    os.utime(store.blob(old), (OLD, OLD))
    age(store.root / "results")
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None and child.stdout.readline() == b"ready\n"
    done = collect_garbage(store, time.time() + 10)
    assert done.spared_since is not None and done.spared_since < time.time()
    assert store.has(digest) and not store.has(old)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    done = collect_garbage(store, time.time() + 10)
    assert done.spared_since is None and not store.has(digest)
    assert len(list((store.root / "users").iterdir())) == 1


def handles(folder: Path) -> list[str]:
    """The files of stores in a folder that this process holds open because it uses them."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one by which the folder is read
            found.append(str(handle.readlink()))
    return [name for name in found if name.startswith(f"{folder}/") and "/users/" in name]


def test_a_store_that_was_removed_is_not_held_open(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Store.open(tmp_path / name)
    assert len(handles(tmp_path)) == 2
    shutil.rmtree(tmp_path / "one")
    Store.open(tmp_path / "two")
    Store.open(tmp_path / "three")
    assert sorted(Path(name).parts[-3] for name in handles(tmp_path)) == ["three", "two"]
    shutil.rmtree(tmp_path / "two")
    Store.open(tmp_path / "two")
    (entry,) = (tmp_path / "two" / "users").iterdir()
    assert [name for name in handles(tmp_path) if "/two/" in name] == [str(entry)]


def test_a_forked_process_enters_a_store_by_itself_and_the_other_stays_in_it(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from pipeline.store import Store
from pipeline.store.store_processes import oldest_other_process
from tests.unit.store.test_store_upkeep import handles
folder = Path({str(tmp_path)!r})
store = Store.open(folder / "it")
before = handles(folder)
child = os.fork()
if child == 0:
    Store.open(folder / "it")
    held = handles(folder)
    os._exit(0 if len(held) == 1 and held != before and oldest_other_process(store.root) is not None else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or handles(folder) != before)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_is_held_is_told_by_kind(store: Store) -> None:
    store.put(b"x" * 10_000)
    held = store_usage(store)
    assert held["blobs"] >= 10_000 and held["locks"] == 0 and "quarantine" in held


# --- which locks are read --------------------------------------------------------------------------------


FOREIGN = {
    "uv.lock": 'version = 1\nrequires-python = ">=3.11"\n',
    "yarn.lock": "# THIS IS AN AUTOGENERATED FILE. DO NOT EDIT THIS FILE DIRECTLY.\n",
    "flake.lock": "{}",
    "empty.lock": "",
    "binary.lock": "\0\1\2",
}


@pytest.fixture
def recipes(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name, text in FOREIGN.items():
        (folder / name).write_text(text)
    (folder / ".git").mkdir()
    (folder / ".git" / "index.lock").write_bytes(b"")
    (folder / "mirror" / "mysql" / ".lock").mkdir(parents=True)
    (folder / "mirror" / "some.lock").mkdir()
    (folder / "gone.lock").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.lock")
    (folder / "uv.yaml").write_text("name: no recipe\n")
    yield folder


def test_the_locks_of_other_programs_are_left_alone(recipes: Path) -> None:
    before = sorted(str(path) for path in recipes.rglob("*"))
    assert locked_packages(recipes) == frozenset()
    assert sorted(str(path) for path in recipes.rglob("*")) == before


def test_locks_beside_recipes_and_alone_are_read(recipes: Path) -> None:
    (recipes / "mysql.yaml").write_text("name: mysql\nlayers: []\n")
    write_lock(recipes / "mysql.lock", Lock("mysql", ()))
    write_lock(recipes / "alone.lock", Lock("alone", ()))
    assert locked_packages(recipes) == frozenset()


@pytest.mark.parametrize("beside", [True, False])
def test_a_damaged_lock_of_ours_ends_it(recipes: Path, beside: bool) -> None:
    """What it names must not be lost because it cannot be read."""
    text = format_lock(Lock("mysql", ()))
    if beside:
        (recipes / "mysql.yaml").write_text("name: mysql\nfrom: base.yaml\n")
        text = text[2:]
    (recipes / "mysql.lock").write_text(text + "[[\n")
    with pytest.raises(ResolutionError) as caught:
        locked_packages(recipes)
    assert caught.value.code == "lock-malformed"


# --- fsck ------------------------------------------------------------------------------------------------


def test_everything_is_read_and_what_is_damaged_is_told_by_file(store: Store) -> None:
    good, bad = store.put(b"good"), store.put(b"bad")
    whole, torn = Digest.of(b"whole"), Digest.of(b"torn")
    store.remember(whole, 1)
    store.remember(torn, {"digest": "x"})
    kept = keep_tree(store)
    touched, rotten = keep_tree(store, "touched"), keep_tree(store, "rotten")
    store.blob(bad).write_bytes(b"damaged")
    store.result(torn).write_bytes(store.result(torn).read_bytes().replace(b"digest", b"dighst"))
    (touched / "root" / "file").write_text("other")
    (rotten / "seal").write_bytes((rotten / "seal").read_bytes()[:-1])
    (store.root / "blobs" / "junk").write_bytes(b"")
    (store.root / "blobs" / ("0" * 64)).symlink_to("/etc/passwd")
    (store.metadata / "planted").mkdir()
    told: list[str] = []
    found = check_store(Store.open(store.root, tell=told.append))
    assert {(one.kind, one.path.name) for one in found.damaged} == {
        ("blob", bad.hex),
        ("blob", "junk"),
        ("blob", "0" * 64),
        ("result", torn.hex),
        ("tree", touched.name),
        ("tree", rotten.name),
        ("metadata", "planted"),
    }
    assert len(told) == len(found.damaged)
    assert store.recall(whole) == 1 and store.recall(torn) is None
    assert store.sound(good) and not store.has(bad)
    assert store.trees.kept(kept.name) == kept and store.trees.kept(touched.name) is None
    again = check_store(store)
    assert again.damaged == () and again.read["blobs"] == 1 and again.read["trees"] == 1


def test_rot_that_no_time_tells_of_is_found_in_blobs_and_trees(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, tree = store.put(b"good"), keep_tree(store)
    monkeypatch.setattr("pipeline.store.tree_seals.tree_metadata_digest", lambda root: "same")
    keep_tree(store, "other")
    monkeypatch.setattr("pipeline.store.content_store.blob_stamp", lambda path: [1])
    store.note_whole(digest)
    store.blob(digest).write_bytes(b"rots")
    other = store.trees.path(DiffId.of(b"other"))
    (other / "root" / "file").write_text("CONTENT")
    assert store.sound(digest) and store.trees.holds(other), "a look tells nothing"
    assert {one.path.name for one in check_store(store).damaged} >= {digest.hex, other.name}
    assert tree.parent == other.parent


def test_results_of_another_store_are_counted_and_left(store: Store, tmp_path: Path) -> None:
    other = Store.open(tmp_path / "other")
    other.remember(Digest.of(b"step"), 1)
    target = store.result(Digest.of(b"step"))
    store.remember(Digest.of(b"own"), 1)
    target.parent.mkdir(exist_ok=True)
    other.result(Digest.of(b"step")).rename(target)
    found = check_store(store)
    assert found.foreign == 1 and found.damaged == () and target.exists()


# --- on the disk before it counts ------------------------------------------------------------------------


class Disk:
    """What was synced and renamed, in order: ("sync", path) and ("name", path)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        fsync, replace, rename = os.fsync, os.replace, os.rename

        def synced(handle: int) -> None:
            self.seen.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
            fsync(handle)

        def replaced(source: Path, target: Path) -> None:
            self.seen.append(("name", f"{source} {target}"))
            replace(source, target)

        def renamed(source: Path, target: Path) -> None:
            self.seen.append(("name", f"{source} {target}"))
            rename(source, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        monkeypatch.setattr(os, "rename", renamed)

    def demand_synced_first(self, target: Path) -> None:
        """The file or folder at `target` was synced before it got its name."""
        at = next(
            index for index, (what, path) in enumerate(self.seen) if what == "name" and path.endswith(f" {target}")
        )
        draft = self.seen[at][1].split(" ")[0]
        assert ("sync", draft) in self.seen[:at], self.seen

    def demand_named(self, folder: Path) -> None:
        """The folder was synced after the last name was put into it."""
        named = max(
            i
            for i, (what, path) in enumerate(self.seen)
            if what == "name" and Path(path.split(" ")[1]).parent == folder
        )
        assert ("sync", str(folder)) in self.seen[named:], self.seen


def test_blobs_and_results_are_synced_before_they_have_their_names(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    digest = store.put(b"blob")
    store.remember(Digest.of(b"step"), 1)
    disk.demand_synced_first(store.blob(digest))
    disk.demand_synced_first(store.result(Digest.of(b"step")))


def test_a_lock_and_its_name_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    write_lock(tmp_path / "x.lock", Lock("x", ()))
    disk.demand_synced_first(tmp_path / "x.lock")
    disk.demand_named(tmp_path)


def test_a_layout_and_the_blobs_that_it_names_are_on_the_disk(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    image = tiny(store)
    write_layout(image, store=store, target=tmp_path / "out" / "tiny")
    disk.demand_synced_first(tmp_path / "out" / "tiny")
    disk.demand_named(tmp_path / "out")
    disk.demand_named(store.root / "blobs")
    synced = {Path(path).name for what, path in disk.seen if what == "sync"}
    assert {"index.json", "oci-layout", "sha256", "blobs", image.config_descriptor.digest.hex} <= synced
    disk.seen.clear()
    write_layout(image, store=store, target=tmp_path / "out" / "tiny")
    assert disk.seen == [], "what stands there is not written again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_what_the_disk_refuses_names_the_file(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    store.remember(Digest.of(b"before"), 1)
    monkeypatch.setattr(os, "fsync", refuse)
    for act in (lambda: store.put(b"blob"), lambda: store.remember(Digest.of(b"step"), 1)):
        with pytest.raises(OSError) as caught:
            act()
        assert str(store.root) in str(caught.value.filename)
    assert not store.has(Digest.of(b"blob")) and store.recall(Digest.of(b"step")) is None


@pytest.mark.parametrize("other", [True, False])
def test_what_a_former_key_sealed_is_no_damage(other: bool, store: Store) -> None:
    """Trees as results: after the key was removed, or another was made, they are ignored and made anew."""
    tree = keep_tree(store)
    store.remember(Digest.of(b"x"), 1)
    (store.root / "key").unlink()
    after = Store.open(store.root)
    if other:
        after.seal(b"")
    found = check_store(after)
    assert (found.damaged, found.foreign, found.read["trees"]) == ((), 2, 0) and tree.is_dir()


def test_a_full_disk_hinders_no_check(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found whole is not noted then; what is damaged is put aside all the same."""
    good, bad = store.put(b"good"), store.put(b"bad")
    store.blob(bad).write_bytes(b"damaged")
    number = errno.ENOSPC

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(Store, "note_whole", refuse)
    found = check_store(store)
    assert [one.path.name for one in found.damaged] == [bad.hex] and found.read["blobs"] == 1
    assert not store.blob(bad).exists() and store.blob(good).exists()
    number = errno.EIO
    with pytest.raises(OSError, match="refused"):
        check_store(store)
