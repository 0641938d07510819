"""Write a layer's entries as files, safely, from one or several threads.

Everything is created relative to directories that were made here and are held open; symlinks are never followed,
nothing is replaced: a path that occurs twice, is beneath something that is no directory of this layer, or is a device,
is refused. Python's `tarfile` does not guarantee this.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Self, assert_never

from pipeline.errors import BuildError, EnvironmentLacking, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.tree import Entry, EntryKind
from pipeline.trees.canonical_path import WHITEOUT

OPEN_FOLDERS = 64
"""Directories that a writer keeps open."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE = 1 << 20
_ZEROS = bytes(_HOLE)
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


@contextlib.contextmanager
def owners_required() -> Iterator[None]:
    """Raise EnvironmentLacking `root-needed` where this process may not give files their owners."""
    try:
        yield
    except PermissionError as error:
        raise EnvironmentLacking(
            "root-needed",
            f"a layer cannot be unpacked with its owners: {error}",
            hint="run relbuild as root, or as a user with subordinate IDs",
        ) from error


@dataclass(slots=True)
class TreeWriter:
    """The writer of one layer's tree, in a `with` block of `opened`.

    `directories` are those of the layer, whose attributes are set by `finish`, after their content was created.
    `content` has each regular file's sha256, by path. Writers made by `beside` share both, so that several threads
    write one tree, each with a writer of its own. `open_folders`, at least 3, is how many directories each keeps open.
    `new_owner` has the uid and gid of files that are created in the tree.
    """

    name: str
    open: OrderedDict[str, int] = field(default_factory=OrderedDict)
    directories: dict[str, Entry] = field(default_factory=lambda: {"": Entry("", EntryKind.DIRECTORY, mode=0o755)})
    files: set[str] = field(default_factory=set)
    content: dict[str, str] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)
    open_folders: int = OPEN_FOLDERS
    new_owner: tuple[int, int] = (-1, -1)

    @classmethod
    def opened(cls, root: Path, name: str, open_folders: int = OPEN_FOLDERS) -> Self:
        """Return a writer into the directory `root`, which was made for the layer.

        `name` is the layer's, for errors.
        """
        handle = os.open(root, _DIRECTORY)
        return cls(name, OrderedDict({"": handle}), open_folders=open_folders, new_owner=_new_owner(handle))

    def beside(self) -> Self:
        """Return another writer of the same tree, for another thread."""
        root = OrderedDict({"": os.dup(self.open[""])})
        return type(self)(
            self.name,
            root,
            self.directories,
            content=self.content,
            open_folders=self.open_folders,
            new_owner=self.new_owner,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.open.values():
            os.close(handle)
        self.open.clear()

    def place(self, entry: Entry, pieces: Iterable[memoryview | bytes] = (), digest: str = "") -> None:
        """Create an entry; a file has the content `pieces`.

        `digest` is the content's sha256 in hex, where the pieces' source compares it; else it is computed. Raises
        VerificationError `layer-malformed`, BuildError `device-node`, OSError.
        """
        try:
            self._place(entry, pieces, digest)
        except FileExistsError:
            raise self.occurs_twice(entry) from None

    def _place(self, entry: Entry, pieces: Iterable[memoryview | bytes], digest: str) -> None:
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
        if last.startswith(WHITEOUT):  # Whoever unpacks the tar would remove something instead.
            raise self._malformed(f"/{entry.path} has the name of a whiteout")
        folder = self._folder(parent)
        match entry.kind:
            case EntryKind.DIRECTORY:
                os.mkdir(last, 0o700, dir_fd=folder)
                self.directories[entry.path] = entry
            case EntryKind.FILE:
                self._file(entry, pieces, digest, folder)
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

    def occurs_twice(self, entry: Entry) -> VerificationError:
        """Return the error of an entry in whose place something stands."""
        return self._malformed(f"/{entry.path} appears twice")

    def remove(self, entry: Entry) -> None:
        """Remove what a child that died has left at the path of an entry, if anything.

        Nothing else may have that path. Raises VerificationError `layer-malformed`, OSError.
        """
        parent, _, last = entry.path.rpartition("/")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(last, dir_fd=self._folder(parent))

    def finish(self) -> None:
        """Set the attributes of the directories, the deepest first."""
        for path in sorted(self.directories, reverse=True):
            entry = self.directories[path]
            folder = self._folder(path)
            _attributes(folder, entry)
            if path in self.opaque:
                _make_opaque(folder)
                os.utime(folder, (entry.mtime, entry.mtime))

    def content_of(self, entry: Entry, buffer: bytearray) -> Generator[memoryview]:
        """Yield the content of a file that was written, read again into `buffer` piece by piece."""
        handle = self.open_file(entry)
        try:
            view = memoryview(buffer)
            while size := os.readv(handle, [buffer]):
                yield view[:size]
                if size < len(buffer):  # A regular file gives less than is asked for at its end only (read(2)).
                    return
        finally:
            os.close(handle)

    def open_file(self, entry: Entry) -> int:
        """Open a file that was written, to be read; return the descriptor, which the caller closes."""
        parent, _, last = entry.path.rpartition("/")
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder(parent))

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
        if len(self.open) >= self.open_folders:
            oldest = next(name for name in self.open if name)
            os.close(self.open.pop(oldest))
        self.open[path] = handle
        return handle

    def _file(self, entry: Entry, pieces: Iterable[memoryview | bytes], digest: str, folder: int) -> None:
        handle = os.open(entry.path.rpartition("/")[2], _NEW_FILE, 0o600, dir_fd=folder)
        try:
            found = None if digest else hashlib.sha256()
            if entry.size:
                _write_content(handle, entry.size, pieces, found)
            self.content[entry.path] = found.hexdigest() if found else digest
            _attributes(handle, entry, self.new_owner)
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


def _new_owner(root: int) -> tuple[int, int]:
    """Return the owner of files that are created below a new, empty directory.

    It is (-1, -1) if that is not known. A new directory has the owner and, with the set-group-ID bit or the mount
    option `grpid`, the group that its own files get (inode(7)).
    """
    status = os.fstat(root)
    if status.st_uid != os.geteuid():
        return -1, -1
    return status.st_uid, status.st_gid


def _attributes(handle: int, entry: Entry, owner: tuple[int, int] | None = None) -> None:
    """Set an entry's attributes. `owner` is that of a file as it was created."""
    if (entry.uid, entry.gid) != owner:  # Owners first: chown clears set-id bits and capabilities.
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


def _write_content(handle: int, size: int, pieces: Iterable[memoryview | bytes], found: hashlib._Hash | None) -> None:
    """Write content with holes for zeros, and hash it into `found`."""
    written, hole = 0, False
    for piece in pieces:
        if found is not None:
            found.update(piece)
        written += len(piece)
        for at in range(0, len(piece), _HOLE):
            part = memoryview(piece)[at : at + _HOLE]
            hole = len(part) == _HOLE and not part[0] and not part[-1] and bytes(part) == _ZEROS
            if hole:
                os.lseek(handle, _HOLE, os.SEEK_CUR)
                continue
            while part:
                part = part[os.write(handle, part) :]
    if hole or written != size:
        os.ftruncate(handle, size)
