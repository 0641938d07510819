"""Validation of layouts: each damage is found and called by its name."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import DiffId, Digest, canonical_json
from pipeline.errors import VerificationError
from pipeline.gzip_members import gzip_member
from pipeline.layers import unpack_to_store
from pipeline.model.image import Image, Layer
from pipeline.oci import blob_path, make_image, media_types, validate_layout, write_archive, write_layout
from pipeline.store import Store
from tests.support.crafted_deflate import by_zlib, fixed_block, member_of
from tests.support.hidden_members import hiding
from tests.support.tiny_image import CONFIG, fake_layer, tar, tiny


def codes(path: Path) -> list[str]:
    return sorted(problem.code for problem in validate_layout(path))


def damage(layout: Path, digest: Digest, data: bytes) -> None:
    path = blob_path(layout, digest)
    path.unlink()
    path.write_bytes(data)


def rewrite(layout: Path, store: Store, change: dict[str, object]) -> Image:
    """Put an image with another config under a manifest that names it rightly."""
    image = tiny(store)
    config = canonical_json(json.loads(image.config_bytes) | change)
    manifest = json.loads(image.manifest_bytes)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    return put(layout, image, config, canonical_json(manifest))


def put(layout: Path, image: Image, config: bytes, manifest: bytes) -> Image:
    for old, new in ((image.config_descriptor, config), (image.manifest_descriptor, manifest)):
        blob_path(layout, old.digest).unlink()
        blob_path(layout, Digest.of(new)).write_bytes(new)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0] |= {"digest": str(Digest.of(manifest)), "size": len(manifest)}
    (layout / "index.json").write_bytes(canonical_json(index))
    return image


def test_all_damaged_blobs_are_reported_at_once(store: Store, layout: Path) -> None:
    image = tiny(store)
    damage(layout, image.layers[0].blob.digest, b"x" * image.layers[0].blob.size)
    damage(layout, image.layers[1].blob.digest, b"short")
    damage(layout, image.config_descriptor.digest, b"y" * image.config_descriptor.size)
    assert codes(layout) == ["digest-mismatch"] * 3 + ["size-mismatch"]
    assert all(problem.hint for problem in validate_layout(layout))


def test_missing_and_superfluous_blobs(store: Store, layout: Path) -> None:
    blob_path(layout, tiny(store).layers[0].blob.digest).unlink()
    blob_path(layout, Digest.of(b"stray")).write_bytes(b"stray")
    (layout / "blobs" / "sha256" / "notes.txt").write_text("x")
    assert codes(layout) == ["blob-missing", "blob-name", "blob-unreferenced"]


def test_a_blob_that_is_a_link_out_of_the_layout(store: Store, layout: Path) -> None:
    path = blob_path(layout, tiny(store).layers[0].blob.digest)
    path.unlink()
    path.symlink_to(store.blob(tiny(store).layers[0].blob.digest))
    assert codes(layout) == ["blob-missing"]


def test_a_tar_that_is_not_the_configs(store: Store, layout: Path) -> None:
    diff_ids = [str(DiffId.of(b"other")), str(tiny(store).layers[1].diff_id)]
    rewrite(layout, store, {"rootfs": {"type": "layers", "diff_ids": diff_ids}})
    assert codes(layout) == ["diff-id-mismatch"]


def test_fewer_diff_ids_than_layers(store: Store, layout: Path) -> None:
    diff_ids = [str(tiny(store).layers[0].diff_id)]
    rewrite(layout, store, {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": []})
    assert codes(layout) == ["layers-mismatch"]


def test_history_and_platform(store: Store, layout: Path) -> None:
    rewrite(layout, store, {"history": [{"created_by": "x"}], "architecture": "arm64"})
    assert codes(layout) == ["history-mismatch", "platform-mismatch"]


def test_a_config_that_is_not_json(store: Store, layout: Path) -> None:
    image = tiny(store)
    manifest = json.loads(image.manifest_bytes)
    manifest["config"] |= {"digest": str(Digest.of(b"{]")), "size": 2}
    put(layout, image, b"{]", canonical_json(manifest))
    assert codes(layout) == ["document-malformed"]


def test_media_types_of_layers_config_and_bytes(store: Store, layout: Path) -> None:
    image = tiny(store)
    manifest = json.loads(image.manifest_bytes)
    manifest["config"]["mediaType"] = "application/json"
    manifest["layers"][0]["mediaType"] = media_types.LAYERS[Compression.ZSTD]
    manifest["layers"][1]["mediaType"] = "application/x-tar"
    put(layout, image, image.config_bytes, canonical_json(manifest))
    assert codes(layout) == ["media-type"] * 3


def test_a_layer_that_grows_beyond_what_the_manifest_says_is_not_decompressed_further(
    store: Store, layout: Path
) -> None:
    image = tiny(store)
    manifest = json.loads(image.manifest_bytes)
    manifest["layers"][0]["annotations"][media_types.LAYER_TAR_SIZE] = "100"
    put(layout, image, image.config_bytes, canonical_json(manifest))
    assert codes(layout) == ["stream-too-large"]


def test_content_behind_a_layers_tar_that_only_others_read_is_found(store: Store, tmp_path: Path) -> None:
    data = tar({"x": b"seen"})
    hidden = [*hiding(data, {"a tar": gzip_member(tar({"y": b"hidden"}))}).values(), behind_reserved_codes(data)]
    for number, blob in enumerate(hidden):
        digest = store.put(blob)
        layer = Layer("l", DiffId.of(data), replace(fake_layer("x").blob, digest=digest, size=len(blob)), len(data))
        layer = replace(layer, blob=replace(layer.blob, media_type=media_types.LAYERS[Compression.GZIP]))
        target = tmp_path / str(number)
        write_layout(make_image("hiding", "1", CONFIG, [layer]), store=store, target=target)
        refused = "stream-damaged" if by_zlib(blob) is None else "stream-too-large"
        assert codes(target) == [refused]
        with pytest.raises(VerificationError) as caught:
            write_archive(target, tmp_path / "a.tar", "docker")
        assert caught.value.code == refused
        with pytest.raises(VerificationError) as caught:
            unpack_to_store(layer, store=store)
        assert caught.value.code == refused
        assert not store.trees.path(layer.diff_id).exists()


def behind_reserved_codes(data: bytes) -> bytes:
    """A tar of which libdeflate makes the last bytes of a length code that the format does not have."""
    assert data.endswith(bytes(259))
    return gzip_member(data[:-259]) + member_of(fixed_block([0, 286, (0, 0)]), bytes(259))


def test_a_bomb_is_stopped(store: Store, tmp_path: Path) -> None:
    data = tar({"x": b"\0" * (30 << 20)})
    blob = gzip.compress(data, mtime=0)
    digest = store.put(blob)
    small = Layer("bomb", DiffId.of(data), replace(fake_layer("x").blob, digest=digest, size=len(blob)), 1 << 20)
    image = make_image("bomb", "1", CONFIG, [small])
    write_layout(image, store=store, target=tmp_path / "bomb")
    assert "stream-too-large" in codes(tmp_path / "bomb")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("oci-layout", '{"imageLayoutVersion":"2.0.0"}', "layout-version"),
        ("oci-layout", "[]", "document-malformed"),
        ("index.json", '{"schemaVersion":1,"manifests":[]}', "no-image"),
        ("index.json", "null", "document-malformed"),
        ("index.json", '{"schemaVersion":2,"manifests":[{"digest":"sha256:zz"}]}', "document-malformed"),
    ],
)
def test_odd_documents(layout: Path, name: str, content: str, code: str) -> None:
    (layout / name).write_text(content)
    assert code in codes(layout)


def test_missing_documents(layout: Path, tmp_path: Path) -> None:
    (layout / "index.json").unlink()
    assert codes(layout) == ["not-a-layout"]
    assert codes(tmp_path / "nowhere") == ["not-a-layout"]
