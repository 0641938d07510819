"""Unpacking is a boundary: what a hostile or damaged layer tries, and what is found wrong with a kept tree."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest
from pipeline.errors import RelbuildError
from pipeline.layers import pack_entries, unpack_to_store
from pipeline.model.image import Descriptor, Layer
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def layer_of(data: bytes, store: Store) -> Layer:
    """A layer with right digests around any tar bytes."""
    blob = gzip.compress(data, 1, mtime=0)
    descriptor = Descriptor(GZIP, store.put(blob), len(blob))
    return Layer("hostile", DiffId(hashlib.sha256(data).hexdigest()), descriptor, len(data))


def tar_of(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """A tar of (name, type, link, content), made by Python."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def directory(name: str) -> tuple[str, bytes, str, bytes]:
    return (name, tarfile.DIRTYPE, "", b"")


def file(name: str, content: bytes = b"x") -> tuple[str, bytes, str, bytes]:
    return (name, tarfile.REGTYPE, "", content)


def symlink(name: str, to: str) -> tuple[str, bytes, str, bytes]:
    return (name, tarfile.SYMTYPE, to, b"")


def link(name: str, to: str) -> tuple[str, bytes, str, bytes]:
    return (name, tarfile.LNKTYPE, to, b"")


HOSTILE = {
    "absolute path": ([file("/tmp/evil")], "unsafe-path"),
    "dots": ([file("../evil")], "unsafe-path"),
    "dots inside": ([directory("a"), file("a/../../evil")], "unsafe-path"),
    "through its own symlink": ([symlink("a", "/tmp"), file("a/evil")], "layer-malformed"),
    "through a deep symlink": ([directory("d"), symlink("d/a", "../../.."), file("d/a/evil")], "layer-malformed"),
    "directory over a symlink": ([symlink("a", "/tmp"), directory("a"), file("a/evil")], "layer-malformed"),
    "beneath a file": ([file("a"), file("a/evil")], "layer-malformed"),
    "hard link out": ([link("a", "/etc/passwd")], "unsafe-path"),
    "hard link upwards": ([link("a", "../../../../etc/passwd")], "unsafe-path"),
    "hard link to a symlink": ([symlink("s", "/etc/passwd"), link("a", "s")], "layer-malformed"),
    "hard link to what comes later": ([link("a", "b"), file("b")], "layer-malformed"),
    "hard link to a directory": ([directory("b"), link("a", "b")], "layer-malformed"),
    "twice": ([file("a"), file("a", b"y")], "layer-malformed"),
    "file over directory": ([directory("a"), file("a")], "layer-malformed"),
    "directory twice": ([directory("a"), directory("a")], "layer-malformed"),
    "without its directory": ([file("a/b")], "layer-malformed"),
    "block device": ([("sda", tarfile.BLKTYPE, "", b"")], "device-node"),
    "character device": ([("null", tarfile.CHRTYPE, "", b"")], "device-node"),
    "root as a file": ([file(".")], "layer-malformed"),
    "long component": ([file("x" * 256)], "unsafe-path"),
    "long path": ([file("/".join(["x" * 200] * 21))], "unsafe-path"),
    "whiteout of dots": ([file(".wh...")], "unsafe-path"),
    "whiteout of nothing": ([file(".wh.")], "layer-malformed"),
    "whiteout of its own directory": ([directory("d"), file("d/.wh.")], "layer-malformed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_refused_and_leaves_nothing(name: str, store: Store, tmp_path: Path) -> None:
    members, code = HOSTILE[name]
    layer = layer_of(tar_of(*members), store)
    with pytest.raises(RelbuildError) as caught:
        unpack_to_store(layer, store=store)
    assert caught.value.code == code
    assert not list((store.root / "trees").iterdir())
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil").exists()


def broken(change: Callable[[bytearray], object]) -> bytes:
    data = bytearray(tar_of(directory("a"), file("a/f", b"content" * 1000)))
    change(data)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        broken(lambda data: data.__setitem__(0, data[0] ^ 1)),
        broken(lambda data: data.__delitem__(slice(2000, None))),
        broken(lambda data: data.__delitem__(slice(700, None))),
        broken(lambda data: data.__setitem__(slice(124, 136), b"not a number")),
        b"garbage" * 1000,
    ],
    ids=["checksum", "ends in a file", "ends in a header", "number", "garbage"],
)
def test_a_malformed_tar_is_refused(data: bytes, store: Store) -> None:
    with pytest.raises(RelbuildError) as caught:
        unpack_to_store(layer_of(data, store), store=store)
    assert caught.value.code == "layer-malformed"


@pytest.fixture
def whole(store: Store) -> Layer:
    entries = [
        (Entry("a", EntryKind.DIRECTORY, mode=0o2750, gid=8, mtime=3), b""),
        (Entry("a/f", EntryKind.FILE, mode=0o4755, uid=27, size=70_000, mtime=1), os.urandom(70_000)),
        (Entry("a/g", EntryKind.HARDLINK, link="a/f"), b""),
        (Entry("a/gone", EntryKind.WHITEOUT), b""),
        (Entry("a/s", EntryKind.SYMLINK, mode=0o777, link="../x", mtime=2), b""),
    ]
    return pack_entries(entries, name="whole", store=store, compression=Compression.GZIP)


def test_owners_modes_times_links_and_whiteouts_are_kept(whole: Layer, store: Store) -> None:
    root = unpack_to_store(whole, store=store)
    folder, one, other = (root / name for name in ("a", "a/f", "a/g"))
    assert (folder.stat().st_mode & 0o7777, folder.stat().st_gid, folder.stat().st_mtime) == (0o2750, 8, 3)
    assert (one.stat().st_mode & 0o7777, one.stat().st_uid, one.stat().st_mtime) == (0o4755, 27, 1)
    assert one.samefile(other)
    assert (root / "a/s").readlink() == Path("../x")
    assert (root / "a/s").lstat().st_mtime == 2
    assert (root / "a/gone").is_char_device()
    assert (root / "a/gone").stat().st_rdev == 0


def test_an_opaque_directory_hides_as_an_overlays_does(store: Store) -> None:
    layer = layer_of(tar_of(directory("a"), file("a/.wh..wh..opq", b"")), store)
    assert os.getxattr(unpack_to_store(layer, store=store) / "a", "trusted.overlay.opaque") == b"y"


def test_a_blob_that_is_not_what_the_layer_says_is_refused(whole: Layer, store: Store) -> None:
    with store.reading(whole.blob.digest) as file:
        data = file.read()
    longer = Descriptor(GZIP, whole.blob.digest, len(data) + 1)
    other = replace(whole, diff_id=DiffId("0" * 64))
    for layer, code in ((replace(whole, blob=longer), "digest-mismatch"), (other, "diff-id-mismatch")):
        with pytest.raises(RelbuildError) as caught:
            unpack_to_store(layer, store=store)
        assert caught.value.code == code
    store.blob(whole.blob.digest).write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    with pytest.raises(RelbuildError) as caught:
        unpack_to_store(whole, store=store)
    assert caught.value.code in ("stream-damaged", "blob-damaged")
    store.blob(whole.blob.digest).unlink(missing_ok=True)
    with pytest.raises(RelbuildError) as caught:
        unpack_to_store(whole, store=store)
    assert caught.value.code == "blob-missing"
    assert not list((store.root / "trees").iterdir())


def test_more_tar_than_the_layer_announces_is_not_read(store: Store) -> None:
    layer = layer_of(tar_of(file("bomb", bytes(200 << 20))), store)
    with pytest.raises(RelbuildError) as caught:
        unpack_to_store(replace(layer, tar_size=1 << 20), store=store)
    assert caught.value.code == "stream-too-large"


def test_a_layer_is_unpacked_once(whole: Layer, store: Store) -> None:
    first = unpack_to_store(whole, store=store)
    before = (first / "a/f").stat().st_ino
    store.blob(whole.blob.digest).unlink()
    assert unpack_to_store(whole, store=store) == first
    assert (first / "a/f").stat().st_ino == before


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "content of the same size": lambda root: rewrite(root / "a/f"),
    "mode": lambda root: (root / "a/f").chmod(0o755),
    "owner": lambda root: os.chown(root / "a", 1, 1),
    "time": lambda root: os.utime(root / "a/f", (5, 5)),
    "new file": lambda root: (root / "a/new").write_bytes(b""),
    "removed": lambda root: (root / "a/g").unlink(),
    "attribute": lambda root: os.setxattr(root / "a/f", "user.x", b"y"),
    "the root itself": lambda root: root.chmod(0o777),
}


def rewrite(path: Path) -> None:
    """Change content and put the time back, as one who wants to hide it would."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tree_that_was_touched_is_unpacked_again(whole: Layer, store: Store, name: str) -> None:
    root = unpack_to_store(whole, store=store)
    fresh = Digest.of((root / "a/f").read_bytes())
    assert store.trees.holds(root.parent)
    TAMPERINGS[name](root)
    assert not store.trees.holds(root.parent)
    assert unpack_to_store(whole, store=store) == root
    assert store.trees.holds(root.parent)
    assert Digest.of((root / "a/f").read_bytes()) == fresh
    assert sorted(path.name for path in (root / "a").iterdir()) == ["f", "g", "gone", "s"]


def test_reading_a_tree_does_not_count_as_touching_it(whole: Layer, store: Store) -> None:
    root = unpack_to_store(whole, store=store)
    (root / "a/f").read_bytes()
    list((root / "a").iterdir())
    assert store.trees.holds(root.parent)
