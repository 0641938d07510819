"""Layers of a layout that come into a store: read once, and known to be intact while their files are unchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.digest import Digest
from pipeline.oci import blob_path, damaged_layers, image_layout, load_layout, load_layout_image
from pipeline.oci.image_layout import file_is_intact
from pipeline.store import Store
from pipeline.store.blobs import BlobWriter, Stamp
from tests.support.tiny_image import tiny


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """The store of a machine to which the layout was copied."""
    return Store.open(tmp_path / "other store")


def append(path: Path) -> None:
    """Change a file: its size, as all that happens within a tick of the clock has one time."""
    path.write_bytes(path.read_bytes() + b"x")


def test_a_layer_that_is_copied_is_not_read_again(
    store: Store, layout: Path, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path, digest: Digest) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(image_layout, "stamp_of_whole", never)
    image = load_layout_image(layout, store=other)
    assert damaged_layers(layout, image, store=other) == ()
    assert all(other.has(layer.blob.digest) for layer in image.layers)


def test_one_that_was_changed_since_is_damaged(store: Store, layout: Path, other: Store) -> None:
    image = load_layout_image(layout, store=other)
    digest = image.layers[0].blob.digest
    append(blob_path(layout, digest))
    assert damaged_layers(layout, image, store=other) == (digest,)


def test_so_is_one_that_is_changed_while_it_is_copied(
    store: Store, layout: Path, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = tiny(store).layers[0].blob.digest
    real = load_layout.copy_into

    def copy_into(file: BinaryIO, target: BlobWriter) -> None:
        real(file, target)
        if os.path.samestat(os.fstat(file.fileno()), blob_path(layout, digest).stat()):
            append(blob_path(layout, digest))

    monkeypatch.setattr(load_layout, "copy_into", copy_into)
    image = load_layout_image(layout, store=other)
    assert other.sound(digest) and damaged_layers(layout, image, store=other) == (digest,)


def test_so_is_one_that_is_changed_just_after_it_was_hashed(
    store: Store, layout: Path, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = tiny(store).layers[0].blob.digest
    path, real = blob_path(layout, digest), image_layout.stamp_of_whole

    def then_change(file: Path, wanted: Digest) -> Stamp | None:
        whole = real(file, wanted)
        append(file)
        return whole

    monkeypatch.setattr(image_layout, "stamp_of_whole", then_change)
    assert file_is_intact(path, digest, other)
    monkeypatch.setattr(image_layout, "stamp_of_whole", real)
    assert not file_is_intact(path, digest, other)
