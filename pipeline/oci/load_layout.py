"""Load the image of a layout into the store, so that it can be unpacked and launched."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path

from pipeline.beneath import NotRegular, open_unlogged
from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.image import Image
from pipeline.oci.image_layout import DAMAGED_LAYOUT, blob_path, file_is_intact, note_layer, read_layout
from pipeline.store import Store, copy_into, status_stamp


def load_layout_image(path: Path, *, store: Store) -> Image:
    """Return the one image in the layout at `path`, with every layer's blob in the store.

    Layers that the store lacks are copied and verified.

    Raises UsageError `not-a-layout` or `several-images`, VerificationError.
    """
    image = read_layout(path)
    load_layers(path, image, store=store)
    return image


def damaged_layers(path: Path, image: Image, *, store: Store) -> tuple[Digest, ...]:
    """Return the layers of an image that are missing or damaged in its layout.

    A file with a recorded stamp is not read.
    """
    digests = (layer.blob.digest for layer in image.layers)
    return tuple(digest for digest in digests if not file_is_intact(blob_path(path, digest), digest, store))


def load_layers(path: Path, image: Image, *, store: Store) -> None:
    """Bring the layers of an image of the layout at `path` into the store, verified.

    Those that are copied are known to be intact in the layout, too, as long as their files are unchanged. Raises
    VerificationError.
    """
    for digest in (layer.blob.digest for layer in image.layers):
        if not store.sound(digest):
            ours = blob_path(path, digest)
            with _opened(ours, digest) as source, store.writer(digest) as blob:
                before = status_stamp(os.fstat(source.fileno()))
                copy_into(source, blob)
            note_layer(store, ours, digest, before)  # It has another stamp by now if it was changed meanwhile.


def _opened(path: Path, digest: Digest) -> BufferedReader:
    try:
        return open_unlogged(path)
    except (FileNotFoundError, NotRegular):
        raise VerificationError(
            "blob-missing", f"layer {digest} is missing in the layout", place=str(path), hint=DAMAGED_LAYOUT
        ) from None
