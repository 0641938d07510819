"""An image as a directory (image-spec 1.1, image-layout.md).

A layout is made beside its place, synced, and put there in one step, so it is whole or not there, also after a power
cut. Blobs are hard links into the store where the file system allows, so a layout costs almost nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.digest import Digest, HashingWriter, canonical_json, chunks, digest_file
from pipeline.errors import UsageError, VerificationError
from pipeline.model.image import Image
from pipeline.oci import media_types
from pipeline.oci.image import DOCUMENT_LIMIT, Reader, descriptor_json, parse_image, platform_json
from pipeline.store import Store, failing_at, sync_file, sync_folder

LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def blob_path(layout: Path, digest: Digest) -> Path:
    """Where a blob stands in a layout."""
    return layout / "blobs" / "sha256" / digest.hex


def index_bytes(image: Image) -> bytes:
    """The layout's index.json: one manifest, with the image's reference as its name."""
    entry = descriptor_json(image.manifest_descriptor)
    entry["platform"] = platform_json(image.config)
    entry["annotations"] = {media_types.REF_NAME: image.reference}
    return canonical_json({"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": [entry]})


def write_layout(image: Image, *, store: Store, target: Path) -> None:
    """Put `image` at `target` as an OCI layout, its layers from the store. What stood there is replaced in one
    step; the same image there is not touched.

    Raises VerificationError `blob-missing` or `blob-damaged` for a layer, UsageError `not-a-layout` if
    something else stands at `target`.
    """
    if _stands(image, store, target):
        return
    if target.exists() and not (target / "oci-layout").exists() and any(target.iterdir()):
        raise UsageError(
            "not-a-layout",
            f"{target} is not empty and no image layout",
            place=str(target),
            hint="name another --output, or remove it",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target) as draft:
        blobs = draft / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for layer in image.layers:
            place = blobs / layer.blob.digest.hex
            if not place.exists():
                _take(store, layer.blob.digest, layer.blob.size, place)
        _write_synced(blobs / image.config_descriptor.digest.hex, image.config_bytes)
        _write_synced(blobs / image.manifest_descriptor.digest.hex, image.manifest_bytes)
        _write_synced(draft / "oci-layout", LAYOUT_FILE)
        _write_synced(draft / "index.json", index_bytes(image))
        draft.chmod(0o755)
        for folder in (blobs, blobs.parent, draft):
            sync_folder(folder)
        store.settle()
        _put(draft, target)
        sync_folder(target.parent)


def read_layout(path: Path) -> Image:
    """The image in a layout that holds one. Its documents are verified, its layers are not (`validate`).

    Raises UsageError `not-a-layout` or `several-images`, VerificationError.
    """
    index = Reader.parse(read_document(path / "index.json"), "index.json")
    manifests = index.get("manifests").items()
    if len(manifests) != 1:
        raise UsageError("several-images", f"{path} holds {len(manifests)} images, not one", place=str(path))
    descriptor = manifests[0].descriptor()
    if descriptor.media_type != media_types.MANIFEST:
        raise UsageError("not-an-image", f"{path} holds a {descriptor.media_type}, not an image", place=str(path))
    manifest = read_blob(path, descriptor.digest)
    config = read_blob(path, Reader.parse(manifest, "manifest").get("config").descriptor().digest)
    reference = dict(descriptor.annotations).get(media_types.REF_NAME, "")
    notes = Reader.parse(manifest, "manifest").get("annotations").members()
    title = notes[media_types.TITLE].text() if media_types.TITLE in notes else path.name
    return parse_image(title, reference, manifest, config)


def read_document(path: Path) -> bytes:
    """A small file's bytes. Raises UsageError `not-a-layout` if it is missing, VerificationError if it is
    large."""
    try:
        with path.open("rb") as file:
            data = file.read(DOCUMENT_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            "not-a-layout",
            f"{path.parent} is not an image layout: it has no {path.name}",
            place=str(path.parent),
        ) from None
    if len(data) > DOCUMENT_LIMIT:
        raise VerificationError("document-too-large", f"{path} has more than {DOCUMENT_LIMIT} bytes")
    return data


def read_blob(layout: Path, digest: Digest) -> bytes:
    """A document's bytes, verified. Raises VerificationError."""
    path = blob_path(layout, digest)
    if not path.is_file():
        raise VerificationError("blob-missing", f"{digest} is not in the layout", place=str(layout))
    data = read_document(path)
    if Digest.of(data) != digest:
        raise VerificationError("blob-damaged", f"{digest} in the layout has other bytes", place=str(path))
    return data


def _stands(image: Image, store: Store, target: Path) -> bool:
    """Is exactly this image at `target` already? A layer's bytes are known by being the store's own file."""
    documents = {
        target / "oci-layout": LAYOUT_FILE,
        target / "index.json": index_bytes(image),
        blob_path(target, image.config_descriptor.digest): image.config_bytes,
        blob_path(target, image.manifest_descriptor.digest): image.manifest_bytes,
    }
    try:
        if any(read_document(path) != data for path, data in documents.items()):
            return False
        wanted = {image.config_descriptor.digest.hex, image.manifest_descriptor.digest.hex}
        wanted |= {layer.blob.digest.hex for layer in image.layers}
        if {path.name for path in (target / "blobs" / "sha256").iterdir()} != wanted:
            return False
        return all(_same(store, blob_path(target, layer.blob.digest), layer.blob.digest) for layer in image.layers)
    except (OSError, UsageError, VerificationError):
        return False


def _same(store: Store, theirs: Path, digest: Digest) -> bool:
    return (store.sound(digest) and store.blob(digest).samefile(theirs)) or digest_file(theirs) == digest


def _write_synced(path: Path, data: bytes) -> None:
    with failing_at(path), path.open("wb") as file:
        file.write(data)
        sync_file(file)


def _take(store: Store, digest: Digest, size: int, place: Path) -> None:
    source = store.blob(digest)
    try:
        found = source.stat().st_size
    except FileNotFoundError:
        raise VerificationError("blob-missing", f"layer {digest} is not in the store") from None
    if found != size:
        raise VerificationError("blob-damaged", f"layer {digest} has {found} bytes in the store, not {size}")
    if not store.sound(digest):
        raise VerificationError(
            "blob-damaged",
            f"layer {digest} in the store has other bytes",
            hint="run the command again: it is made anew",
        )
    try:
        place.hardlink_to(source)
        store.note_whole(digest)  # A link is a change of the file, which was sound until now.
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        with failing_at(place), source.open("rb") as file, place.open("wb") as copy:
            writer = HashingWriter(copy)
            for piece in chunks(file):
                writer.write(piece)
            sync_file(copy)
        if writer.digest != digest:
            raise VerificationError("blob-damaged", f"layer {digest} in the store has other bytes") from None


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder on the file system of `target`; whatever is left of it is removed."""
    draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(draft: Path, target: Path) -> None:
    """Move `draft` to `target`; what stood there is then at `draft`."""
    if not target.exists():
        draft.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(draft), os.fsencode(target)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return
    # Some file systems cannot exchange: for a moment nothing is there, but never half of something.
    old = draft.with_name(f"{draft.name}.old")
    target.rename(old)
    draft.rename(target)
    shutil.rmtree(old, ignore_errors=True)
