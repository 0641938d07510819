"""Layers and their trees, made in one pass from payloads, and read back."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.compression import Compression
from pipeline.digest import CHUNK, Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.layers import (
    build_layer,
    build_layers,
    building_layers,
    chunk_writer,
    layer_packing,
    segments,
    tar_digest,
    two_step_layer,
    unpack_to_store,
)
from pipeline.layers.layer import BuiltLayer
from pipeline.layers.own_blobs import is_own_blob
from pipeline.layers.tar_marks import TarKey
from pipeline.layers.tree_writer import TreeWriter
from pipeline.layers.unpack_layer import read_blob_back
from pipeline.model.package import Nevra
from pipeline.model.tree import Entry, EntryKind
from pipeline.packages import PayloadFile
from pipeline.store import Store
from pipeline.trees import ComposedLayer, Part
from tests.support.patience import HUNG
from tests.support.trees import read_tree

ME, GROUP, TIME = os.getuid(), os.getgid(), 1_700_000_000
CONTENT = {
    "ant": {"usr/ant": b"a" * 10, "usr/big": os.urandom(3 << 20) + bytes(2 << 20)},
    "bee": {"usr/bee": b"bee"},
    "cow": {"usr/cow": b"c" * 100_000},
}


class Payloads:
    """Payloads that stand in for those of RPMs; `read` names the packages whose payload was asked for."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.checksums = {store.put(name.encode()): name for name in CONTENT}
        self.hashed = True
        monkeypatch.setattr(segments, "read_payload", self._payload)

    def _payload(self, rpm: Path) -> Iterator[PayloadFile]:
        name = self.checksums[Digest(rpm.name)]
        self.read.append(name)
        for index, content in enumerate(CONTENT[name].values()):
            digest = Digest.of(content).hex if self.hashed else ""
            yield PayloadFile((index,), len(content), lambda content=content: iter(cut(content)), digest)  # type: ignore[misc]

    def layer(self, *names: str, label: str = "all") -> ComposedLayer:
        folder = Entry("usr", EntryKind.DIRECTORY, 0o750, ME, GROUP, mtime=TIME)
        parts = tuple(Part(Nevra(name, 0, "1", "1", "noarch"), self._checksum(name), entries(name)) for name in names)
        return ComposedLayer(label, (folder,), parts, tuple(str(part.nevra) for part in parts), TIME)

    def _checksum(self, name: str) -> Digest:
        return next(digest for digest, one in self.checksums.items() if one == name)


def cut(content: bytes) -> list[bytes]:
    return [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]


def entries(name: str) -> tuple[tuple[int, Entry], ...]:
    found = [
        (index, Entry(path, EntryKind.FILE, 0o640, ME, GROUP, mtime=TIME, size=len(content)))
        for index, (path, content) in enumerate(CONTENT[name].items())
    ]
    # A hard link has its file's size, as RPM says it, though no content of its own in a tar.
    first = found[0][1]
    link = replace(first, path=f"usr/{name}-link", kind=EntryKind.HARDLINK, link=first.path)
    to = Entry(f"usr/{name}-to", EntryKind.SYMLINK, 0o777, ME, GROUP, mtime=TIME, link=name)
    return (*found, (7, link), (8, to))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def payloads(store: Store, monkeypatch: pytest.MonkeyPatch) -> Payloads:
    return Payloads(store, monkeypatch)


def made(
    store: Store, *layers: ComposedLayer, compression: Compression = Compression.GZIP, unpack: bool = True
) -> list[BuiltLayer]:
    return build_layers(layers, store=store, compression=compression, unpack=unpack)


def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Blobs are not read back until the event is set."""
    go, real = threading.Event(), two_step_layer.TwoStepLayer.read_back

    def waiting(self: two_step_layer.TwoStepLayer) -> Any:
        assert go.wait(HUNG)
        return real(self)

    monkeypatch.setattr(two_step_layer.TwoStepLayer, "read_back", waiting)
    return go


def trees(store: Store) -> int:
    return len(list((store.root / "trees").iterdir()))


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("hashed", [True, False], ids=["sha256 in the header", "none in the header"])
def test_the_tree_that_is_made_beside_a_layer_is_what_its_blob_unpacks_to(
    store: Store, payloads: Payloads, tmp_path: Path, compression: Compression, hashed: bool
) -> None:
    payloads.hashed = hashed
    (built,) = made(store, payloads.layer("ant", "bee", "cow"), compression=compression)
    kept = store.trees.kept(built.layer.diff_id)
    assert kept is not None and store.trees.holds(kept, reading=True)
    other = Store.open(tmp_path / "other")
    with store.reading(built.layer.blob.digest) as file, other.writer() as blob:
        blob.write(file.read())
    assert read_tree(kept / "root") == read_tree(unpack_to_store(built.layer, store=other))
    assert (kept / "root/usr/big").stat().st_blocks * 512 < 5 << 20, "zeros take room on the disk"


def test_a_layer_is_the_same_with_and_without_its_tree(store: Store, payloads: Payloads, tmp_path: Path) -> None:
    (with_tree,) = made(store, payloads.layer("ant", "bee", "cow"))
    other = Store.open(tmp_path / "other")
    for name in CONTENT:
        other.put(name.encode())
    bare = build_layer(payloads.layer("ant", "bee", "cow"), store=other, compression=Compression.GZIP)
    assert bare.layer == with_tree.layer
    assert trees(other) == 0


def test_segments_that_are_there_are_hashed_without_a_tree(store: Store, payloads: Payloads, tmp_path: Path) -> None:
    made(store, payloads.layer("ant"), unpack=False)
    payloads.read.clear()
    (built,) = made(store, payloads.layer("ant", "bee"), unpack=False)
    assert payloads.read == ["bee"]
    other = Store.open(tmp_path / "other")
    for name in CONTENT:
        other.put(name.encode())
    assert made(other, payloads.layer("ant", "bee"))[0].layer == built.layer


def test_a_damaged_package_ends_all_work_also_where_bytes_wait_for_their_turn(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = payloads._payload

    def damaged(rpm: Path) -> Iterator[PayloadFile]:
        if payloads.checksums[Digest(rpm.name)] == "bee":
            time.sleep(0.3)  # The other package is so far ahead by then that it waits.
            raise VerificationError("package-damaged", "bee is damaged")
        yield from real(rpm)

    monkeypatch.setattr(segments, "read_payload", damaged)
    monkeypatch.setattr(tar_digest, "_AHEAD", 1)
    with pytest.raises(VerificationError) as caught:
        made(store, payloads.layer("bee", "ant"), unpack=False)
    assert caught.value.code == "package-damaged"


def test_many_layers_at_once_keep_few_files_open(store: Store, payloads: Payloads) -> None:
    plain = payloads.layer("bee")
    (usr,) = plain.directories
    layers = [
        replace(plain, directories=(usr, *(replace(usr, path=f"usr/{number}-{at:02}") for at in range(70))))
        for number in range(12)
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 450, hard))
    try:
        assert len({one.layer.diff_id for one in made(store, *layers)}) == 12
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_name_that_means_a_whiteout_in_the_tar_is_not_written_into_the_tree(store: Store, payloads: Payloads) -> None:
    plain = payloads.layer("bee")
    folder = Entry("usr/.wh.lib", EntryKind.DIRECTORY, 0o755, ME, GROUP, mtime=TIME)
    with pytest.raises(VerificationError) as caught:
        made(store, replace(plain, directories=(*plain.directories, folder)))
    assert caught.value.code == "layer-malformed"


def test_a_store_that_may_not_be_written_is_not_taken_for_owners_that_may_not_be_set(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied", "blobs")

    monkeypatch.setattr(two_step_layer, "compress_entries", refuse)
    with pytest.raises(PermissionError):
        made(store, payloads.layer("bee"))


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("unpack", [True, False])
def test_layers_do_not_depend_on_the_number_of_threads(
    store: Store,
    payloads: Payloads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compression: Compression,
    unpack: bool,
) -> None:
    wanted = payloads.layer("bee", "cow", label="lower"), payloads.layer("ant", label="upper")
    first = made(store, *wanted, compression=compression, unpack=unpack)
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: 1)
    monkeypatch.setattr(layer_packing, "TAR_WAITING_LIMIT", 0)
    other = Store.open(tmp_path / "other")
    for name in CONTENT:
        other.put(name.encode())
    payloads.read.clear()
    again = made(other, *wanted, compression=compression, unpack=unpack)
    assert [one.layer for one in again] == [one.layer for one in first]
    assert payloads.read == ["ant", "bee", "cow"], "one thread keeps the order, and begins with the largest layer"
    assert [one.layer.name for one in first] == ["lower", "upper"]


@pytest.mark.parametrize("compression", list(Compression))
def test_bytes_whose_turn_has_not_come_wait_in_a_file_and_leave_none(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compression: Compression
) -> None:
    (wanted,) = made(store, payloads.layer("bee", "ant"), compression=compression)
    other = Store.open(tmp_path / "other")
    for name in CONTENT:
        other.put(name.encode())
    real, ended = payloads._payload, threading.Event()

    def later(rpm: Path) -> Iterator[PayloadFile]:
        if payloads.checksums[Digest(rpm.name)] == "bee":
            assert compression is Compression.GZIP or ended.wait(HUNG), "the larger one waits for its turn"
        yield from real(rpm)
        if payloads.checksums[Digest(rpm.name)] == "ant":
            ended.set()

    monkeypatch.setattr(segments, "read_payload", later)
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: 2)
    monkeypatch.setattr(layer_packing, "TAR_WAITING_LIMIT", 0)
    assert made(other, payloads.layer("bee", "ant"), compression=compression, unpack=False)[0].layer == wanted.layer
    assert list((other.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_threads_without_any_room_for_what_waits_end_all_the_same(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    wanted = payloads.layer("bee", "cow", "ant", label="lower"), payloads.layer("cow", "bee", label="upper")
    first = made(store, *wanted, compression=Compression.ZSTD)
    for limit in ("TAR_WAITING_LIMIT", "TAR_FILE_LIMIT"):
        monkeypatch.setattr(layer_packing, limit, 0)
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: workers)
    other = Store.open(tmp_path / "other")
    for name in CONTENT:
        other.put(name.encode())
    again = made(other, *wanted, compression=Compression.ZSTD, unpack=False)
    assert [one.layer for one in again] == [one.layer for one in first]


def test_segments_that_are_there_are_unpacked_and_not_made_again(store: Store, payloads: Payloads) -> None:
    made(store, payloads.layer("ant", "bee"))
    payloads.read.clear()
    (built,) = made(store, payloads.layer("ant", "bee", "cow"))
    assert payloads.read == ["cow"]
    kept = store.trees.kept(built.layer.diff_id)
    assert kept is not None and (kept / "root/usr/big").read_bytes() == CONTENT["ant"]["usr/big"]


def test_a_layer_with_the_same_content_under_two_names_is_made_once(store: Store, payloads: Payloads) -> None:
    first, second = made(store, payloads.layer("bee"), payloads.layer("bee", label="again"))
    assert payloads.read == ["bee"]
    assert (first.layer.name, second.layer.name) == ("all", "again")
    assert first.layer.blob == second.layer.blob


@pytest.mark.parametrize(
    ("unpack", "told"), [(True, "in what it has of bee-1-1.noarch"), (False, "other bytes than were compressed")]
)
def test_a_blob_that_is_not_the_tar_that_was_hashed_is_refused_and_nothing_of_it_is_used_again(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch, unpack: bool, told: str
) -> None:
    compressing = chunk_writer.layer_codec

    def wrong(compression: Compression) -> Any:
        codec = compressing(compression)
        return type(codec)(
            codec.reads, codec.media_suffix, lambda piece: codec.compress(bytes(piece).replace(b"bee", b"bed")), str
        )

    monkeypatch.setattr(chunk_writer, "layer_codec", wrong)
    wanted = payloads.layer("bee", "cow")
    with (
        pytest.raises(VerificationError) as caught,
        building_layers([wanted], store=store, compression=Compression.ZSTD, unpack=unpack) as (built,),
    ):
        pass
    assert caught.value.code == "diff-id-mismatch" and told in str(caught.value)
    monkeypatch.setattr(chunk_writer, "layer_codec", compressing)
    payloads.read.clear()
    (again,) = made(store, wanted, compression=Compression.ZSTD, unpack=unpack)
    assert not again.reused and sorted(payloads.read) == ["bee", "cow"]
    assert again.layer.diff_id == built.diff_id


def test_a_blob_that_the_disk_has_changed_where_gzip_ignores_it_is_damaged(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decompresses to the tar, and has another digest."""
    real, wanted = layer_packing.read_blob_back, payloads.layer("bee", "cow")

    def change(digest: Digest, **given: Any) -> Any:
        monkeypatch.setattr(layer_packing, "read_blob_back", real)
        blob = store.blob(digest)
        content = bytearray(blob.read_bytes())
        content[4] ^= 1  # The first member's time of modification (RFC 1952).
        blob.chmod(0o600)
        blob.write_bytes(content)
        return real(digest, **given)

    monkeypatch.setattr(layer_packing, "read_blob_back", change)
    with pytest.raises(VerificationError) as caught:
        made(store, wanted, unpack=False)
    assert caught.value.code == "blob-damaged"
    (again,) = made(store, wanted, unpack=False)
    assert not again.reused and store.sound(again.layer.blob.digest)


def test_a_blob_of_another_size_than_was_told_is_refused(store: Store, payloads: Payloads) -> None:
    (one,) = made(store, payloads.layer("bee"))
    with pytest.raises(VerificationError, match=f"not {one.layer.blob.size + 1} of") as caught:
        read_blob_back(
            one.layer.blob.digest,
            size=one.layer.blob.size + 1,
            tar_size=one.tar_size,
            name="all",
            store=store,
            key=TarKey(),
        )
    assert caught.value.code == "digest-mismatch" and store.sound(one.layer.blob.digest)


def test_a_layer_is_remembered_and_released_when_it_was_read_back(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = held_back(monkeypatch)
    wanted = payloads.layer("bee")
    second: list[BuiltLayer] = []
    other = threading.Thread(target=lambda: second.extend(made(store, wanted)))
    with building_layers([wanted], store=store, compression=Compression.GZIP, unpack=True) as (first,):
        other.start()
        other.join(0.2)
        assert other.is_alive() and not second, "it waits for the layer's lock"
        assert store.trees.kept(first.diff_id) is not None and not first.blob.done(), "its tree is there"
        go.set()
    other.join(HUNG)
    assert second[0].reused and second[0].layer == first.layer
    assert is_own_blob(first.layer.blob.digest, store), "the faster library may read it"


def test_who_builds_on_layers_is_told_once_that_some_are_made_and_not_when_all_are_recalled(
    store: Store, payloads: Payloads
) -> None:
    wanted, told = [payloads.layer("bee"), payloads.layer("cow")], list[str]()
    for _ in range(2):
        with building_layers(
            wanted,
            store=store,
            compression=Compression.GZIP,
            unpack=True,
            making=lambda: told.append("making"),
        ) as built:
            told.append("built")
        assert len(built) == 2
    assert told == ["making", "built", "built"]


def test_a_damaged_package_ends_all_work_and_leaves_no_draft(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = payloads._payload

    def damaged(rpm: Path) -> Iterator[PayloadFile]:
        if payloads.checksums[Digest(rpm.name)] == "bee":
            raise VerificationError("package-damaged", "bee is damaged")
        yield from real(rpm)

    monkeypatch.setattr(segments, "read_payload", damaged)
    with pytest.raises(VerificationError) as caught:
        made(store, payloads.layer("bee", "cow"), payloads.layer("ant", label="upper"))
    assert caught.value.code == "package-damaged"
    assert list((store.root / "tmp").iterdir()) == []
    monkeypatch.setattr(segments, "read_payload", real)
    assert not made(store, payloads.layer("bee", "cow"))[0].reused, "its lock was released"


def test_a_tree_whose_owners_may_not_be_set_says_what_it_wants(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(EnvironmentLacking) as caught:
        made(store, payloads.layer("bee"))
    assert caught.value.code == "root-needed"


def test_a_file_that_is_not_what_was_announced_in_the_tree_is_no_layer(
    store: Store, payloads: Payloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TreeWriter, "content_of", lambda self, entry, buffer: iter([memoryview(b"x")]))
    with pytest.raises(VerificationError) as caught:
        made(store, payloads.layer("bee"))
    assert caught.value.code == "layer-malformed"
