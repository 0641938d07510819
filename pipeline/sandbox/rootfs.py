"""Read and write files in a container's root from the host, never following links out of it.

Every path is looked up by the kernel with the container's root as `/` (openat2(2), RESOLVE_IN_ROOT), so that
symlinks of the image resolve as in the container. Owners are the image's IDs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from pipeline.errors import BuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel

_SAFE = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
_FOLDER = os.O_PATH | os.O_DIRECTORY
_LINKS = 40
"""Symlinks that are followed in one path: the kernel's own bound (path_resolution(7))."""


@dataclass(frozen=True, slots=True)
class RootFs:
    """A container's root behind the descriptor `handle`. `shift` is added to the image's IDs."""

    handle: int
    shift: int

    # --- reading -------------------------------------------------------------------------------

    def read(self, path: str, *, limit: int) -> bytes | None:
        """Read a regular file's content, following links; None if there is none.

        Raises BuildError `file-too-large` beyond `limit` bytes.
        """
        data = self.read_head(path, limit + 1)
        if data is not None and len(data) > limit:
            raise BuildError("file-too-large", f"{path} in the image has more than {limit} bytes", place=path)
        return data

    def read_head(self, path: str, size: int) -> bytes | None:
        """Read up to `size` bytes of a regular file, following links; None if there is none."""
        if "\0" in path:
            return None
        try:
            handle = kernel.openat2(self.handle, path, os.O_RDONLY | os.O_NONBLOCK, resolve=_SAFE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG):
                return None
            raise
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            return None
        with os.fdopen(handle, "rb") as file:
            return file.read(size)

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result | None:
        """Return the status of the file at `path`, or None if there is none.

        `st_uid` and `st_gid` are the host's IDs.
        """
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        try:
            handle = kernel.openat2(self.handle, path, flags, resolve=_SAFE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise
        try:
            return os.fstat(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def folder(self, path: str, *, links: bool = True) -> Iterator[int]:
        """Open a directory; without `links`, a path over a symlink raises OSError ELOOP."""
        resolve = _SAFE if links else _SAFE | kernel.RESOLVE_NO_SYMLINKS
        handle = kernel.openat2(self.handle, path, _FOLDER, resolve=resolve)
        try:
            yield handle
        finally:
            os.close(handle)

    def require_mount_point(self, path: str) -> None:
        """Require a directory at `path` that is reached without a symlink.

        A runtime that mounts at a symlink could mount elsewhere. Raises BuildError `mount-point-odd`.
        """
        try:
            with self.folder(path, links=False):
                pass
        except OSError as error:
            raise BuildError(
                "mount-point-odd",
                f"mount point '{path}' is not a directory in the image: {error.strerror}",
                place=path,
                hint="create the directory with a package or under 'files'",
            ) from error

    def real(self, path: str) -> str:
        """Resolve the symlinks of a path as the container would.

        Returns the path in the container, whether or not it exists.
        """
        done: list[str] = []
        ahead = [*reversed(PurePosixPath("/", path).parts[1:])]
        links = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                del done[-1:]
                continue
            target = self._link("/" + "/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise BuildError("unsafe-path", f"'{path}' in the image follows too many symlinks", place=path)
            if target.startswith("/"):
                done.clear()
            ahead += reversed([word for word in target.split("/") if word not in ("", ".")])
        return "/" + "/".join(done)

    def require_working_directory(self, path: str) -> None:
        """Require that a working directory is not below /proc, /sys or /dev, also behind a symlink.

        There it could reach the host by a descriptor of the runtime (CVE-2024-21626). Raises BuildError
        `directory-impossible`.
        """
        real = self.real(path)
        if PurePosixPath(real).parts[1:2] in (("proc",), ("sys",), ("dev",)):
            raise BuildError(
                "directory-impossible",
                f"invalid working directory '{path}'" + ("" if real == path else f", a symlink to '{real}'"),
                place=path,
                hint="set 'working_directory' to a directory outside of /proc, /sys and /dev",
            )

    def _link(self, path: str) -> str | None:
        """Return the target of the symlink at `path`; None if there is no symlink."""
        try:
            handle = kernel.openat2(self.handle, path, os.O_PATH | os.O_NOFOLLOW, resolve=_SAFE)
        except OSError:
            return None
        try:
            return os.readlink("", dir_fd=handle) if stat.S_ISLNK(os.fstat(handle).st_mode) else None
        finally:
            os.close(handle)

    # --- writing -------------------------------------------------------------------------------

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
        """Write a regular file at `path` atomically.

        A file or symlink at `path` is replaced; its other hard links are not changed. `content` may come in pieces.
        Parent directories must exist (`make_directory`).
        """
        with self._parent(path) as (folder, name):
            temporary = f".relbuild-{secrets.token_hex(8)}"
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    for piece in (content,) if isinstance(content, bytes) else content:
                        file.write(piece)
                    file.flush()
                    self._own(handle, uid, gid, mode, directory=False)
                    if mtime is not None:
                        os.utime(handle, (mtime, mtime))
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                if isinstance(error, OSError):
                    raise _failed(path, error) from error
                raise

    def link(self, path: str, existing: str) -> None:
        """Put a hard link to the file `existing` at `path`; a file or symlink there is replaced."""
        with self._parent(existing) as (source, old), self._parent(path) as (folder, name):
            temporary = f".relbuild-{secrets.token_hex(8)}"
            try:
                os.link(old, temporary, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise _failed(path, error) from error

    def make_directory(
        self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int | None = None
    ) -> None:
        """Make a directory, or set mode and owner of an existing one.

        Missing parents are made with owner root and mode 0755; existing ones are not changed. A symlink to a directory
        is followed.
        """
        parts = PurePosixPath("/", path).parts[1:]
        for end in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:end])
            last = end == len(parts)
            if not last and self.stat(here) is not None:
                continue
            with self._parent(here) as (folder, name):
                made = True
                try:
                    os.mkdir(name, 0o700, dir_fd=folder)
                except FileExistsError:
                    made = False
            try:
                handle = kernel.openat2(self.handle, here, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, resolve=_SAFE)
            except OSError as error:
                raise _failed(here, error) from error
            try:
                if last:
                    self._own(handle, uid, gid, mode, directory=True)
                    if mtime is not None:
                        os.utime(handle, (mtime, mtime))
                elif made:
                    self._own(handle, 0, 0, 0o755, directory=True)
            finally:
                os.close(handle)

    def symlink(self, path: str, target: str, *, uid: int = 0, gid: int = 0, mtime: int | None = None) -> None:
        """Put a symlink at `path`; a file or symlink there is replaced."""
        with self._parent(path) as (folder, name):
            temporary = f".relbuild-{secrets.token_hex(8)}"
            try:
                os.symlink(target, temporary, dir_fd=folder)
                self._own_link(temporary, folder, uid, gid)
                if mtime is not None:
                    os.utime(temporary, (mtime, mtime), dir_fd=folder, follow_symlinks=False)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise _failed(path, error) from error

    def remove(self, path: str) -> bool:
        """Remove the file, symlink or directory at `path`; return False if there was none.

        A directory is removed with all that is in it; of a symlink, the link itself.
        """
        if self.stat(path, follow=False) is None:
            return False
        with self._parent(path) as (folder, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                # shutil.rmtree walks by descriptors and never follows a link.
                shutil.rmtree(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        return True

    def _own(self, handle: int, uid: int, gid: int, mode: int, *, directory: bool) -> None:
        """Set the owners and mode of an open file or directory."""
        os.fchown(handle, uid + self.shift, gid + self.shift)
        os.fchmod(handle, mode)

    def _own_link(self, name: str, folder: int, uid: int, gid: int) -> None:
        """Set the owners of the symlink `name` in an open directory."""
        os.chown(name, uid + self.shift, gid + self.shift, dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        pure = PurePosixPath("/", path)
        if not pure.name or ".." in pure.parts or "\0" in path:
            raise BuildError("unsafe-path", f"'{path}' does not name a file in the image", place=path)
        try:
            handle = kernel.openat2(self.handle, str(pure.parent), _FOLDER, resolve=_SAFE)
        except OSError as error:
            raise _failed(str(pure.parent), error) from error
        try:
            yield handle, pure.name
        finally:
            os.close(handle)


def _failed(path: str, error: OSError) -> BuildError:
    shown = path.lstrip("/")
    if error.errno == errno.EISDIR:
        return BuildError(
            "image-path-failed",
            f"cannot write '/{shown}' in the image: a directory is there",
            place=path,
            hint="choose another path, or put files into it",
        )
    return BuildError(
        "image-path-failed",
        f"cannot write '/{shown}' in the image: {error.strerror}",
        place=path,
        hint="check which package puts a file in place of a directory there, or a loop of symlinks",
    )
