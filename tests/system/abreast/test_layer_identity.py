"""The same packages, the same layer: identity, reuse, and what damages it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId, digest_file
from pipeline.errors import RelbuildError
from pipeline.layers import build_layer
from pipeline.store import Store
from tests.support.layer_comparison import composed, layered, of_mirror


@pytest.mark.parametrize("compression", list(Compression))
def test_a_layer_is_the_same_from_another_store_and_in_another_order(
    three: list[Path], tmp_path: Path, compression: Compression
) -> None:
    first = layered(three, Store.open(tmp_path / "a"), compression=compression)
    second = layered(three[::-1], Store.open(tmp_path / "b"), compression=compression)
    assert first == second


def test_the_codec_does_not_show_in_the_diff_id(three: list[Path], store: Store) -> None:
    layers = [layered(three, store, compression=compression) for compression in Compression]
    assert layers[0].diff_id == layers[1].diff_id
    assert layers[0].blob.digest != layers[1].blob.digest


def test_an_unchanged_layer_is_reused(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    made = [build_layer(layer, store=store, compression=Compression.GZIP) for _ in range(2)]
    assert [one.reused for one in made] == [False, True]
    assert made[0].layer == made[1].layer


def test_a_package_is_compressed_once_for_all_layers_that_it_is_in(
    three: list[Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layered(three[:2], store)
    opened: list[str] = []
    from pipeline.layers import segments

    real = segments.read_payload

    def counting(path: Path) -> object:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(segments, "read_payload", counting)
    layered(three, store)
    assert opened == [digest_file(three[2]).hex]


def test_a_damaged_segment_is_put_aside_and_made_again(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    whole = build_layer(layer, store=store, compression=Compression.ZSTD).layer
    packages = {digest_file(package).hex for package in three}
    for blob in (store.root / "blobs").iterdir():
        if blob.name == whole.blob.digest.hex:
            blob.unlink()
        elif blob.name not in packages and blob.stat().st_size > 10_000:
            data = bytearray(blob.read_bytes())
            data[len(data) // 2] ^= 1
            blob.write_bytes(data)
    assert build_layer(layer, store=store, compression=Compression.ZSTD).layer == whole
    assert len(list((store.root / "quarantine").iterdir())) == len(three)


def test_a_package_that_is_missing_from_the_store_is_named(three: list[Path], store: Store) -> None:
    (layer,) = composed(three, store).layers
    store.blob(digest_file(three[0])).unlink()
    with pytest.raises(RelbuildError, match=r"one-1-1\.noarch") as caught:
        build_layer(layer, store=store, compression=Compression.GZIP)
    assert caught.value.code == "blob-missing"


@pytest.mark.parametrize("command", [["gzip", "-dc"], ["tar", "-tzf", "-"]])
def test_common_tools_read_the_layer(three: list[Path], store: Store, command: list[str]) -> None:
    layer = layered(three, store)
    with store.reading(layer.blob.digest) as file:
        out = subprocess.run(command, stdin=file, capture_output=True, check=True).stdout
    if command[0] == "gzip":
        assert DiffId(hashlib.sha256(out).hexdigest()) == layer.diff_id
        assert len(out) == layer.tar_size
    else:
        assert "usr/lib/two/numbers" in out.decode().splitlines()


def test_a_layer_lists_no_path_twice_and_every_directory_before_what_is_in_it(mirror: Path, store: Store) -> None:
    layer = layered(of_mirror(mirror, "hardcase-identical", "hardcase-identical-b", "hardcase-beneath"), store)
    with store.reading(layer.blob.digest) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    for place, name in enumerate(names):
        assert "/" not in name or os.path.dirname(name) in names[:place], name  # noqa: PTH120
