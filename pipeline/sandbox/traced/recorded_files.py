"""Read and write files in a recorded tree, with owners and modes in its table."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.traced.inode_records import InodeRecord, real_mode
from pipeline.sandbox.traced.recorded_tree import RecordedTree


@dataclass(frozen=True, slots=True)
class RecordedFiles(RootFs):
    """The root of a recorded tree, behind the descriptor `handle`."""

    tree: RecordedTree

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result | None:
        """Return the status of the file at `path` with the owners and mode that it has in the image."""
        found = RootFs.stat(self, path, follow=follow)
        if found is None:
            return None
        mode, uid, gid = self.tree.records.as_in_image(found)
        return os.stat_result((mode, *found[1:4], uid, gid, *found[6:10]))

    def write_file(
        self,
        path: str,
        content: bytes | Iterable[bytes | memoryview],
        *,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime: int | None = None,
    ) -> None:
        """Write a regular file at `path` atomically; see `RootFs`."""
        self._forget_file(path)
        RootFs.write_file(self, path, content, mode=mode, uid=uid, gid=gid, mtime=mtime)
        self.tree.changed.add(self._canonical(path))

    def link(self, path: str, existing: str) -> None:
        """Put a hard link to the file `existing` at `path`; see `RootFs`."""
        status = RootFs.stat(self, existing, follow=False)
        if status is not None:
            self.tree.copy_up(self._canonical(existing), status)
        self._forget_file(path)
        RootFs.link(self, path, existing)
        self.tree.changed.add(self._canonical(path))

    def make_directory(
        self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int | None = None
    ) -> None:
        """Make a directory, or set mode and owner of an existing one; see `RootFs`."""
        RootFs.make_directory(self, path, mode=mode, uid=uid, gid=gid, mtime=mtime)
        self.tree.changed.add(self.real(path).lstrip("/"))

    def symlink(self, path: str, target: str, *, uid: int = 0, gid: int = 0, mtime: int | None = None) -> None:
        """Put a symlink at `path`; see `RootFs`."""
        self._forget_file(path)
        RootFs.symlink(self, path, target, uid=uid, gid=gid, mtime=mtime)
        self.tree.changed.add(self._canonical(path))

    def remove(self, path: str) -> bool:
        """Remove the file, symlink or directory at `path`; see `RootFs`."""
        self.tree.touch(self._canonical(path))
        self.tree.forget(self._canonical(path))
        return RootFs.remove(self, path)

    def _forget_file(self, path: str) -> None:
        """Forget the record of a file that is to be replaced."""
        found = RootFs.stat(self, path, follow=False)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            self.tree.forget(self._canonical(path))

    def _canonical(self, path: str) -> str:
        folder, name = posixpath.split(path.rstrip("/"))
        return posixpath.join(self.real(folder or "/"), name).lstrip("/")

    def _own(self, handle: int, uid: int, gid: int, mode: int, *, directory: bool) -> None:
        os.fchmod(handle, real_mode(mode, directory=directory))
        status = os.fstat(handle)
        if directory:
            # It may have been there before; the record of a removed one is forgotten.
            self.tree.records.change(status, mode=mode & 0o7777, uid=uid, gid=gid)
        else:
            self.tree.records.created(status, InodeRecord(mode & 0o7777, uid, gid))

    def _own_link(self, name: str, folder: int, uid: int, gid: int) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        self.tree.records.created(status, InodeRecord(0o777, uid, gid))
