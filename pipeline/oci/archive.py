"""Write a layout's image as one file: an OCI archive (the layout as tar) or Docker archive.

`docker load`, `podman load` and skopeo's `docker-archive:` read a Docker archive. The same layout always gives the same
bytes.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from pipeline.compression import Piece
from pipeline.digest import HashingWriter, canonical_json
from pipeline.errors import VerificationError
from pipeline.model.archive_kind import ArchiveKind
from pipeline.model.image import Image, Layer
from pipeline.oci.image_layout import blob_path, read_document, read_layout
from pipeline.oci.image_manifest import tag_of
from pipeline.streams import LAYER_SIZE_LIMIT, IteratorFile, decompressed, decompression_workers


def write_archive(layout: Path, target: Path, kind: ArchiveKind) -> None:
    """Write the image of `layout` as an archive to `target`, atomically.

    A Docker archive contains the layers' tars, so layers are decompressed, and verified by their diff_ids. Raises
    UsageError, VerificationError.
    """
    image = read_layout(layout)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with draft.open("xb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            if kind == "oci":
                _oci(layout, tar)
            else:
                _docker(layout, image, tar)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _oci(layout: Path, tar: tarfile.TarFile) -> None:
    for name in ("oci-layout", "index.json"):
        _add(tar, name, read_document(layout / name))
    for path in sorted((layout / "blobs" / "sha256").iterdir()):
        with path.open("rb") as file:
            _stream(tar, f"blobs/sha256/{path.name}", os.fstat(file.fileno()).st_size, file)


def _docker(layout: Path, image: Image, tar: tarfile.TarFile) -> None:
    names = [f"{layer.diff_id.hex}.tar" for layer in image.layers]
    config = f"{image.config_descriptor.digest.hex}.json"
    whole = ":" in image.reference
    tags = [image.reference if whole else f"{image.name}:{tag_of(image.reference) or 'latest'}"]
    written: set[str] = set()
    for layer, name in zip(image.layers, names, strict=True):
        if name in written:
            continue
        written.add(name)
        size = layer.tar_size or _tar_size(layout, layer)
        with _LayerTar(layout, layer) as content, io.BufferedReader(content) as buffered:
            _stream(tar, name, size, buffered)
            content.check(size)
    _add(tar, config, image.config_bytes)
    _add(tar, "manifest.json", canonical_json([{"Config": config, "RepoTags": tags, "Layers": names}]))


class _LayerTar(IteratorFile):
    """A layer's decompressed tar as a file, which is hashed while it is read."""

    def __init__(self, layout: Path, layer: Layer) -> None:
        self._layer = layer
        self._seen = HashingWriter()
        file = blob_path(layout, layer.blob.digest).open("rb")
        super().__init__(self._counted(_pieces(file, layer)), file.close)

    def _counted(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            self._seen.write(piece)
            yield piece

    def check(self, size: int) -> None:
        """Check size and diff_id after reading. Raises VerificationError `diff-id-mismatch`."""
        if self.read(1) or self._seen.size != size or self._seen.diff_id != self._layer.diff_id:
            name, diff_id = self._layer.name, self._layer.diff_id
            raise VerificationError("diff-id-mismatch", f"layer '{name}' does not match its diff_id {diff_id}")


def _pieces(file: BinaryIO, layer: Layer) -> Iterator[Piece]:
    limit = layer.tar_size or LAYER_SIZE_LIMIT
    return decompressed(file, limit=limit, name=f"layer {layer.name}", workers=decompression_workers())


def _tar_size(layout: Path, layer: Layer) -> int:
    with blob_path(layout, layer.blob.digest).open("rb") as file:
        return sum(len(piece) for piece in _pieces(file, layer))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    _stream(tar, name, len(data), io.BytesIO(data))


def _stream(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    # Reproducible: owner 0 without names, time 0.
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    tar.addfile(entry, content)
