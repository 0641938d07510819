"""The faster library reads what this store has compressed, and nothing else."""

from __future__ import annotations

from pathlib import Path

from pipeline.compression import Compression
from pipeline.layers.own_blobs import is_own_blob
from pipeline.layers.pack_layer import pack_entries
from pipeline.layers.unpack_layer import verified_tar
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind
from pipeline.store import Store


def kinds(layer: Layer, store: Store) -> set[type]:
    """The types of the pieces of a layer's tar: libdeflate gives bytearray, zlib bytes."""
    return {type(piece) for piece in verified_tar(layer, store)}


def test_a_blob_is_read_by_libdeflate_in_the_store_that_compressed_it(tmp_path: Path) -> None:
    ours, other = Store.open(tmp_path / "ours"), Store.open(tmp_path / "other")
    entries = [(Entry("a", EntryKind.FILE, 0o644, size=5), b"hello")]
    layer = pack_entries(entries, name="layer", store=ours, compression=Compression.GZIP)
    assert other.put(ours.blob(layer.blob.digest).read_bytes()) == layer.blob.digest
    assert kinds(layer, ours) == {bytearray}
    assert kinds(layer, other) == {bytes}
    assert list(map(bytes, verified_tar(layer, ours))) == list(verified_tar(layer, other))


def test_a_record_that_is_lost_or_of_another_store_does_not_count(tmp_path: Path) -> None:
    ours, other = Store.open(tmp_path / "ours"), Store.open(tmp_path / "other")
    entries = [(Entry("a", EntryKind.FILE, 0o644, size=5), b"hello")]
    for store in (ours, other):
        layer = pack_entries(entries, name="layer", store=store, compression=Compression.GZIP)
    assert is_own_blob(layer.blob.digest, ours)
    for path in (other.root / "results").rglob("*"):
        if path.is_file():
            theirs = ours.root / path.relative_to(other.root)
            theirs.write_bytes(path.read_bytes())
    assert not is_own_blob(layer.blob.digest, ours)
    assert kinds(layer, ours) == {bytes}
