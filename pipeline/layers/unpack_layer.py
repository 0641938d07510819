"""Unpack a layer's blob into a folder of the store, verified, for overlayfs to mount.

A layer is unpacked once per diff_id. The blob's digest and diff_id are computed while it is unpacked, and only if both
match is the tree put in place. Everything is created relative to directories that were made here and are held open;
symlinks are never followed, nothing is replaced: a path that occurs twice, is beneath something that is no directory of
this layer, or is a device, is refused. Python's `tarfile` does not guarantee this.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import BinaryIO, assert_never, cast

from pipeline.digest import DiffId
from pipeline.errors import BuildError, EnvironmentLacking, VerificationError
from pipeline.layers.chunk_writer import COMPRESSION_WORKERS
from pipeline.layers.tar_format import TarMember, read_tar
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Layer
from pipeline.model.tree import Entry, EntryKind
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.store import Store
from pipeline.store.tree_seals import TREE_ROOT
from pipeline.streams import decompressed, prefetch

LAYER_ENTRIES_LIMIT = 4_000_000
"""Entries in one layer: ten times a full desktop installation."""

_OPEN_LIMIT = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE = 1 << 20
_ZEROS = bytes(_HOLE)
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def unpack_to_store(layer: Layer, *, store: Store, progress: Progress = QUIET) -> Path:
    """Return the folder of the layer's tree, unpacked now or before and unchanged since.

    Owners are the image's IDs; whiteouts are overlayfs's. Raises VerificationError `blob-missing`,
    `digest-mismatch`, `diff-id-mismatch`, `layer-malformed`, `stream-damaged`; BuildError `device-node`,
    `unsafe-path`; EnvironmentLacking `root-needed`.
    """
    with store.locked(f"tree-{layer.diff_id.hex}"):
        kept = store.kept_tree(layer.diff_id)
        if kept is not None:
            return kept / TREE_ROOT
        with (
            task(progress, "unpack", layer.name, total=layer.tar_size, unit="bytes") as running,
            store.temporary("unpack") as place,
        ):
            made = place / "tree"
            (made / TREE_ROOT).mkdir(parents=True)
            try:
                content = _extract(_counted(_verified(layer, store), running), made / TREE_ROOT, layer.name)
            except PermissionError as error:
                raise EnvironmentLacking(
                    "root-needed",
                    f"a layer cannot be unpacked with its owners: {error}",
                    hint="run relbuild as root, or as a user with subordinate IDs",
                ) from error
            return store.keep_tree(made, layer.diff_id, content) / TREE_ROOT


def layer_entries(layer: Layer, *, store: Store) -> Iterator[Entry]:
    """Yield the entries of the layer in order, whiteouts as the kinds WHITEOUT and OPAQUE.

    Nothing is unpacked. Digest and diff_id are checked at the end, so entries are verified only when the end is
    reached. Raises as `unpack_to_store`.
    """
    for member in layer_members(layer, store=store):
        yield member.entry


def layer_members(layer: Layer, *, store: Store) -> Iterator[TarMember]:
    """Yield the entries of the layer with the content of files; see `layer_entries`."""
    return read_tar(_verified(layer, store), layer.name)


def _verified(layer: Layer, store: Store) -> Iterator[bytes]:
    """Yield the layer's tar bytes; raise at the end if digest or diff_id do not match."""
    with store.reading(layer.blob.digest) as file:
        compressed = _Hashing(file)
        found = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for piece in decompressed(
                cast("BinaryIO", compressed), limit=layer.tar_size, name=layer.name, workers=COMPRESSION_WORKERS
            ):
                found.update(piece)
                yield piece

        yield from prefetch(hashed())
        compressed.drain()
    if compressed.hash.hexdigest() != layer.blob.digest.hex or compressed.size != layer.blob.size:
        store.verify(layer.blob.digest)  # Removes it and raises, if the store's copy is damaged.
        raise VerificationError(
            "digest-mismatch",
            f"layer '{layer.name}' is {compressed.size} bytes of sha256:{compressed.hash.hexdigest()},"
            f" not {layer.blob.size} of {layer.blob.digest}",
        )
    if (diff_id := DiffId(found.hexdigest())) != layer.diff_id:
        raise VerificationError(
            "diff-id-mismatch", f"layer '{layer.name}' decompresses to {diff_id}, not to {layer.diff_id}"
        )


def _counted(pieces: Iterator[bytes], running: Task) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        running.advance(len(piece))


class _Hashing:
    """A file that computes the digest of the bytes read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def _extract(pieces: Iterator[bytes], root: Path, name: str) -> dict[str, str]:
    """Unpack a tar stream into `root`; return each regular file's sha256, by path."""
    extraction = _Extraction(name)
    handle = os.open(root, _DIRECTORY)
    try:
        extraction.open[""] = handle
        for count, member in enumerate(read_tar(pieces, name)):
            if count >= LAYER_ENTRIES_LIMIT:
                raise VerificationError(
                    "layer-malformed", f"layer '{name}' has more than {LAYER_ENTRIES_LIMIT} entries"
                )
            extraction.place(member)
        extraction.finish()
        return extraction.content
    finally:
        extraction.close()


@dataclass(slots=True)
class _Extraction:
    """The state of unpacking one layer.

    `directories` are those of the layer, whose attributes are set at the end, after their content was created.
    """

    name: str
    open: OrderedDict[str, int] = field(default_factory=OrderedDict)
    directories: dict[str, Entry] = field(default_factory=lambda: {"": Entry("", EntryKind.DIRECTORY, mode=0o755)})
    files: set[str] = field(default_factory=set)
    content: dict[str, str] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)

    def place(self, member: TarMember) -> None:
        entry = member.entry
        try:
            self._place(entry, member)
        except FileExistsError:
            raise self._malformed(f"/{entry.path} appears twice") from None

    def _place(self, entry: Entry, member: TarMember) -> None:
        if entry.kind is EntryKind.OPAQUE:
            self._folder(entry.path)
            self.opaque.add(entry.path)
            return
        if entry.path == "":
            if entry.kind is not EntryKind.DIRECTORY:
                raise self._malformed("its root is not a directory")
            self.directories[""] = entry
            return
        parent, _, last = entry.path.rpartition("/")
        folder = self._folder(parent)
        match entry.kind:
            case EntryKind.DIRECTORY:
                os.mkdir(last, 0o700, dir_fd=folder)
                self.directories[entry.path] = entry
            case EntryKind.FILE:
                self._file(entry, member, last, folder)
                self.files.add(entry.path)
            case EntryKind.HARDLINK:
                self._link(entry, last, folder)
            case EntryKind.SYMLINK:
                os.symlink(entry.link, last, dir_fd=folder)
                os.chown(last, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
                os.utime(last, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)
            case EntryKind.FIFO:
                os.mkfifo(last, 0o600, dir_fd=folder)
                os.chown(last, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
                os.chmod(last, entry.mode, dir_fd=folder)
                os.utime(last, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)
            case EntryKind.WHITEOUT:
                os.mknod(last, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)
            case EntryKind.CHARACTER | EntryKind.BLOCK | EntryKind.OPAQUE:
                raise BuildError(
                    "device-node",
                    f"/{entry.path} in layer '{self.name}' is a device node; relbuild does not unpack those",
                    place=f"/{entry.path}",
                )
            case other:
                assert_never(other)

    def finish(self) -> None:
        """Set the attributes of the directories, the deepest first."""
        for path in sorted(self.directories, reverse=True):
            entry = self.directories[path]
            folder = self._folder(path)
            _attributes(folder, entry)
            if path in self.opaque:
                _make_opaque(folder)
                os.utime(folder, (entry.mtime, entry.mtime))

    def close(self) -> None:
        for handle in self.open.values():
            os.close(handle)

    def _folder(self, path: str) -> int:
        """Return an open descriptor of a directory of this layer."""
        handle = self.open.get(path)
        if handle is not None:
            self.open.move_to_end(path)
            return handle
        if path not in self.directories:
            raise self._malformed(f"/{path} is used as a directory, but is not a directory of the layer")
        parent, _, last = path.rpartition("/")
        handle = os.open(last, _DIRECTORY, dir_fd=self._folder(parent))
        if len(self.open) >= _OPEN_LIMIT:
            oldest = next(name for name in self.open if name)
            os.close(self.open.pop(oldest))
        self.open[path] = handle
        return handle

    def _file(self, entry: Entry, member: TarMember, last: str, folder: int) -> None:
        handle = os.open(last, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            found = hashlib.sha256()
            if entry.size:
                _write_content(handle, entry.size, member.pieces(), found)
            self.content[entry.path] = found.hexdigest()
            _attributes(handle, entry)
        finally:
            os.close(handle)

    def _link(self, entry: Entry, last: str, folder: int) -> None:
        if entry.link not in self.files:
            raise self._malformed(f"/{entry.path} is a hard link to /{entry.link}, which is not a file of the layer")
        parent, _, name = entry.link.rpartition("/")
        here = os.dup(folder)  # Opening the other folder may close this descriptor.
        try:
            os.link(name, last, src_dir_fd=self._folder(parent), dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)
        self.content[entry.path] = self.content[entry.link]

    def _malformed(self, why: str) -> VerificationError:
        return VerificationError("layer-malformed", f"layer '{self.name}' cannot be unpacked: {why}")


def _attributes(handle: int, entry: Entry) -> None:
    # Owners first: chown clears set-id bits and capabilities.
    os.fchown(handle, entry.uid, entry.gid)
    os.fchmod(handle, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(handle, name, value)
    os.utime(handle, (entry.mtime, entry.mtime))


def _make_opaque(handle: int) -> None:
    try:
        os.setxattr(handle, _OPAQUE[0], b"y")
    except PermissionError:  # In a user namespace only the attribute of `userxattr` mounts can be set.
        os.setxattr(handle, _OPAQUE[1], b"y")


def _write_content(handle: int, size: int, pieces: Iterator[memoryview], found: hashlib._Hash) -> None:
    """Write content with holes for zeros, and hash it into `found`."""
    for piece in pieces:
        found.update(piece)
        for at in range(0, len(piece), _HOLE):
            part = piece[at : at + _HOLE]
            if len(part) == _HOLE and not part[0] and not part[-1] and bytes(part) == _ZEROS:
                os.lseek(handle, _HOLE, os.SEEK_CUR)
                continue
            while part:
                part = part[os.write(handle, part) :]
    os.ftruncate(handle, size)
