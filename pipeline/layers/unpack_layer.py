"""Unpack a layer's blob into a folder of the store, verified, for overlayfs to mount.

A layer is unpacked once per diff_id. The blob's digest and diff_id are computed while it is unpacked, and only if both
match is the tree put in place. `tree_writer` creates its files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.compression import Piece, crc32
from pipeline.digest import CHUNK, DiffId, Digest
from pipeline.errors import VerificationError
from pipeline.layers.built_layer import BuiltLayer
from pipeline.layers.own_blobs import is_own_blob
from pipeline.layers.tar_format import TarMember, read_tar
from pipeline.layers.tar_marks import TarKey, TarMark, TarMarker
from pipeline.layers.tree_writer import TreeWriter, owners_required
from pipeline.model.image import Layer
from pipeline.model.tree import Entry
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT
from pipeline.streams import decompressed, decompression_workers, prefetch

LAYER_ENTRIES_LIMIT = 4_000_000
"""Entries in one layer: ten times a full desktop installation."""

LAYERS_IN_TWO = 30
"""Layers of an image up to which each may have two trees: overlayfs mounts some 64."""


def unpack_to_store(layer: Layer | BuiltLayer, *, store: Store, progress: Progress = QUIET) -> Path:
    """Return the folder of the layer's whole tree, unpacked now or before and unchanged since.

    Where it has to be unpacked, its blob is waited for. Owners are the image's IDs; whiteouts are overlayfs's. Raises
    VerificationError `blob-missing`, `digest-mismatch`, `diff-id-mismatch`, `layer-malformed`, `stream-damaged`;
    BuildError `device-node`, `unsafe-path`; EnvironmentLacking `root-needed`; of a layer in packing, what that raises.
    """
    if isinstance(layer, BuiltLayer):
        with store.locked(f"tree-{layer.diff_id.hex}"):
            kept = store.trees.kept(layer.diff_id)
        if kept is not None:
            return kept / TREE_ROOT
        layer = layer.layer  # Without the lock, which its packing may need.
    with store.locked(f"tree-{layer.diff_id.hex}"):
        kept = store.trees.kept(layer.diff_id)
        if kept is not None:
            return kept / TREE_ROOT
        with (
            task(progress, "unpack", layer.name, total=layer.tar_size, unit="bytes") as running,
            store.temporary("unpack") as place,
        ):
            made = place / "tree"
            (made / TREE_ROOT).mkdir(parents=True)
            with owners_required():
                content = _extract(_counted(verified_tar(layer, store), running), made / TREE_ROOT, layer.name)
            return store.trees.keep(made, layer.diff_id, content) / TREE_ROOT


def lower_folders(
    layers: Sequence[Layer | BuiltLayer], *, store: Store, progress: Progress = QUIET
) -> tuple[Path, ...]:
    """Return the folders of the layers' trees, which overlayfs mounts, the lowest first.

    A layer that was made over an earlier one's tree has two. Raises as `unpack_to_store`.
    """
    found: list[Path] = []
    for layer in layers:
        if len(layers) <= LAYERS_IN_TWO:
            with store.locked(f"tree-{layer.diff_id.hex}"):
                kept = store.trees.kept_stack(layer.diff_id)
            if kept is not None:
                found += [folder / TREE_ROOT for folder in kept]
                continue
        found.append(unpack_to_store(layer, store=store, progress=progress))
    return tuple(found)


def layer_entries(layer: Layer, *, store: Store) -> Iterator[Entry]:
    """Yield the entries of the layer in order, whiteouts as the kinds WHITEOUT and OPAQUE.

    Nothing is unpacked. Digest and diff_id are checked at the end, so entries are verified only when the end is
    reached. Raises as `unpack_to_store`.
    """
    for member in layer_members(layer, store=store):
        yield member.entry


def layer_members(layer: Layer, *, store: Store) -> Iterator[TarMember]:
    """Yield the entries of the layer with the content of files; see `layer_entries`."""
    return read_tar(verified_tar(layer, store), layer.name)


def verified_tar(layer: Layer, store: Store) -> Iterator[Piece]:
    """Yield the layer's tar bytes; raise at the end if digest or diff_id do not match."""
    found, blob = hashlib.sha256(), layer.blob
    own = is_own_blob(blob.digest, store)
    yield from prefetch(
        _tar_of_blob(blob.digest, blob.size, layer.tar_size, name=layer.name, store=store, found=found, own=own)
    )
    if (diff_id := DiffId(found.hexdigest())) != layer.diff_id:
        raise VerificationError(
            "diff-id-mismatch", f"layer '{layer.name}' decompresses to {diff_id}, not to {layer.diff_id}"
        )


def read_blob_back(
    digest: Digest,
    *,
    size: int,
    tar_size: int,
    name: str,
    store: Store,
    key: TarKey,
    go_on: Callable[[], None] = lambda: None,
) -> TarMark:
    """Decompress a layer's blob and return the mark of its tar under `key`.

    `go_on` is called before each piece, and raises if no more is wanted. Raises VerificationError `blob-missing`,
    `digest-mismatch`, `layer-malformed` (another size), `stream-damaged`.
    """
    found = TarMarker(key)
    for _ in _tar_of_blob(digest, size, tar_size, name=name, store=store, found=found, own=True):
        go_on()
    if found.size != tar_size:
        raise VerificationError("layer-malformed", f"layer '{name}' has {found.size} bytes of tar, not {tar_size}")
    return found.mark()


def _tar_of_blob(
    digest: Digest,
    size: int,
    tar_size: int,
    *,
    name: str,
    store: Store,
    found: hashlib._Hash | TarMarker,
    own: bool,
) -> Iterator[Piece]:
    """Yield a blob's tar bytes, once `found` was updated with them.

    `own`: this store has compressed it. Raises at the end if the blob has another digest.
    """
    with store.reading(digest) as blob:
        compressed = HashingReader(blob.readinto)  # type: ignore[attr-defined]
        file = cast("BinaryIO", compressed)
        for piece in decompressed(file, limit=tar_size, name=name, workers=decompression_workers(), own=own):
            found.update(piece)
            yield piece
        compressed.drain()
    if compressed.hash.hexdigest() != digest.hex or compressed.size != size:
        store.verify(digest)  # Removes it and raises, if the store's copy is damaged.
        raise VerificationError(
            "digest-mismatch",
            f"layer '{name}' is {compressed.size} bytes of sha256:{compressed.hash.hexdigest()},"
            f" not {size} of {digest}",
        )


def _counted(pieces: Iterator[Piece], running: Task) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        running.advance(len(piece))


class HashingReader(io.RawIOBase):
    """A raw file that computes the digest of the bytes read, and their CRC-32 (`checksum`)."""

    def __init__(self, readinto: Callable[[memoryview], int]) -> None:
        """Read by `readinto`, which returns 0 at the end only."""
        self._readinto = readinto
        self.hash = hashlib.sha256()
        self.checksum = 0
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Read as many bytes as fit."""
        with memoryview(buffer).cast("B") as view:
            size = self._readinto(view)
            self.hash.update(view[:size])
            self.checksum = crc32(view[:size], self.checksum)
        self.size += size
        return size

    def drain(self) -> None:
        """Read what is left."""
        buffer = bytearray(CHUNK)
        while self.readinto(buffer):
            pass


def _extract(pieces: Iterator[Piece], root: Path, name: str) -> dict[str, str]:
    """Unpack a tar stream into `root`; return each regular file's sha256, by path."""
    with TreeWriter.opened(root, name) as tree:
        for count, member in enumerate(read_tar(pieces, name)):
            if count >= LAYER_ENTRIES_LIMIT:
                raise VerificationError(
                    "layer-malformed", f"layer '{name}' has more than {LAYER_ENTRIES_LIMIT} entries"
                )
            tree.place(member.entry, member.pieces())
        tree.finish()
        return tree.content
