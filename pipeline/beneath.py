"""Opening files below a folder, and nothing outside it: the only door to `openat2`.

A name is resolved by the kernel with RESOLVE_BENEATH (openat2(2), Linux 5.6): links are followed as long as they stay
in the folder, and no `..`, absolute link or link of /proc leads out of it, however the folder changes meanwhile. Where
the kernel or a filter of system calls does not offer that, the name is resolved here, one component after the other,
each opened with O_NOFOLLOW, with the same result.

Only regular files (or, where asked for, folders) are opened, without waiting: a FIFO or a device is refused by name.
Every error is an OSError with its file's path, so that callers turn them into errors of their own as they do others.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Final

from pipeline.errors import RecipeError

LINK_LIMIT: Final = 40
"""Links that one name may lead through, as in the kernel (MAXSYMLINKS)."""
PART_LIMIT: Final = 1024
"""Components of one name, with those of the links that it leads through."""

_OPENAT2: Final = 437
"""Number of the system call, the same on every architecture."""
_NO_MAGIC_LINKS: Final = 0x02
_BENEATH: Final = 0x08
_TRIES: Final = 8
"""EAGAIN means that something was renamed meanwhile; a folder in which that never ends is refused."""
_LOOK: Final = os.O_PATH | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Escape(OSError):
    """A name leads out of the folder. `link` is the link that does, below the folder ("": the name itself), `target`
    what stands in it."""

    def __init__(self, folder: Path, name: str, link: str, target: str) -> None:
        self.folder, self.link, self.target = folder, link, target
        message = (
            f"the link '{link}' leads to '{target}', outside '{folder}'"
            if link
            else f"'{name}' lies outside '{folder}'"
        )
        super().__init__(errno.EXDEV, message, str(folder / name))

    @property
    def way_out(self) -> str:
        """What to do about it."""
        if not self.link:
            return "move the file into that folder"
        if self.target.startswith("/"):
            return "put the file itself there; a link has to be relative, and to stay in the folder"
        return "put the file itself there, or link to one in the folder"


class NotRegular(OSError):
    """What is opened is no regular file."""

    def __init__(self, path: Path, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        super().__init__(code, f"it is {kind}, and a file is wanted", str(path))


class LinkRefused(OSError):
    """A link stands where none is expected."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ELOOP, "a link stands where none is expected", str(path))


class TooLarge(OSError):
    """A file has more than `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.limit = limit
        super().__init__(errno.EFBIG, f"it has more than {limit} bytes", str(path))


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, and all that can be read below it. `path` itself is the caller's word and may lead through links."""

    path: Path

    def open(self, name: str | PurePath) -> BufferedReader:
        """The regular file `name`, for reading. Raises OSError: Escape, NotRegular, FileNotFoundError …"""
        handle = self._handle(name, wanted=stat.S_IFREG)
        return os.fdopen(handle, "rb")

    def open_unlinked(self, name: str | PurePath) -> BufferedReader:
        """As `open`, where not even a link that stays in the folder is expected. Raises OSError: LinkRefused,
        NotRegular, FileNotFoundError …"""
        *above, last = _plain_parts(self.path, os.fspath(name))
        here = os.open(self.path, _LOOK | os.O_DIRECTORY)
        try:
            for part in above:
                inner = _open_unlinked(here, part, _LOOK, self.path / name)
                os.close(here)
                here = inner
            handle = _open_unlinked(here, last, _READ, self.path / name)
        finally:
            os.close(here)
        try:
            _demand(handle, self.path / name, stat.S_IFREG)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

    def read(self, name: str | PurePath, limit: int) -> bytes:
        """The content of the regular file `name`, which has at most `limit` bytes also while it grows. Raises as
        `open`, and TooLarge."""
        with self.open(name) as file:
            return _bounded(file, self.path / name, limit)

    def open_folder(self, name: str | PurePath) -> int:
        """A descriptor of the folder `name`, which the caller closes. Raises as `open`."""
        return self._handle(name, wanted=stat.S_IFDIR)

    def has_file(self, name: str | PurePath) -> bool:
        """Whether `name` is a regular file that can be reached without leaving the folder. Raises Escape."""
        return self._has(name, stat.S_IFREG)

    def has_folder(self, name: str | PurePath) -> bool:
        """Whether `name` is a folder that can be reached without leaving this one. Raises Escape."""
        return self._has(name, stat.S_IFDIR)

    def check(self, name: str | PurePath) -> None:
        """Raise Escape where `name` leads out of the folder, whatever it names or whether it is there."""
        self._has(name, None)

    def _has(self, name: str | PurePath, kind: int | None) -> bool:
        try:
            handle = self._look(name)
        except Escape:
            raise
        except OSError:
            return False
        try:
            return kind is None or stat.S_IFMT(os.fstat(handle).st_mode) == kind
        finally:
            os.close(handle)

    def _look(self, name: str | PurePath) -> int:
        top = os.open(self.path, _LOOK | os.O_DIRECTORY)
        try:
            return _open(top, self.path, os.fspath(name), _LOOK)
        finally:
            os.close(top)

    def _handle(self, name: str | PurePath, *, wanted: int) -> int:
        """Looked at before it is opened, because opening a device may do something; and again afterwards."""
        path = self.path / name
        flags = _READ | (os.O_DIRECTORY if wanted == stat.S_IFDIR else 0)
        top = os.open(self.path, _LOOK | os.O_DIRECTORY)
        try:
            seen = _open(top, self.path, os.fspath(name), _LOOK)
            try:
                _demand(seen, path, wanted)
            finally:
                os.close(seen)
            handle = _open(top, self.path, os.fspath(name), flags)
        finally:
            os.close(top)
        try:
            _demand(handle, path, wanted)
        except BaseException:
            os.close(handle)
            raise
        return handle


@dataclass(frozen=True, slots=True)
class Given:
    """The folder that was given: `folder`, that of the recipe that a person named. What stands in it is opened there.
    What a recipe names with `..` is opened below the folder above, where `templates/` and recipes that others share
    may stand (right below the file system's root: `/templates` alone); no name and no link leads further."""

    folder: Path

    def place(self, path: Path) -> tuple[Folder, str]:
        """The folder below which `path` is opened, and its name there. Raises Escape."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100  not resolved: links are followed when it is opened
        inner = Path(os.path.abspath(self.folder))  # noqa: PTH100
        above = inner.parent
        outer = above / "templates" if above == Path(above.anchor) else above
        for folder in (inner, outer):
            if whole.is_relative_to(folder):
                return Folder(folder), os.fspath(whole.relative_to(folder))
        raise Escape(outer, os.path.relpath(whole, inner), "", "")

    def open(self, path: Path) -> BufferedReader:
        """As `Folder.open`."""
        folder, name = self.place(path)
        return folder.open(name)

    def read(self, path: Path, limit: int) -> bytes:
        """As `Folder.read`."""
        folder, name = self.place(path)
        return folder.read(name, limit)

    def has_file(self, path: Path) -> bool:
        """As `Folder.has_file`."""
        folder, name = self.place(path)
        return folder.has_file(name)

    def has_folder(self, path: Path) -> bool:
        """As `Folder.has_folder`."""
        folder, name = self.place(path)
        return folder.has_folder(name)

    def check(self, path: Path) -> None:
        """As `Folder.check`."""
        folder, name = self.place(path)
        folder.check(name)


def escape_error(error: Escape, place: str | None) -> RecipeError:
    """An escape as a person is told of it."""
    return RecipeError("path-escapes", str(error.strerror), place=place, hint=error.way_out)


def read_file(path: Path, limit: int) -> bytes:
    """The content of a regular file that a person named, links and all; at most `limit` bytes. Raises OSError:
    NotRegular, TooLarge, FileNotFoundError …"""
    with open_file(path) as file:
        return _bounded(file, path, limit)


def open_file(path: Path) -> BufferedReader:
    """A regular file that a person named, for reading. Raises OSError: NotRegular, FileNotFoundError …"""
    if not stat.S_ISREG(mode := path.stat().st_mode):
        raise NotRegular(path, mode)
    handle = os.open(path, _READ)
    try:
        _demand(handle, path, stat.S_IFREG)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _plain_parts(folder: Path, name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise Escape(folder, name, "", name)
    if not parts or "\0" in name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return parts


def _open_unlinked(folder: int, part: str, flags: int, path: Path) -> int:
    """Open one component that is no link. With O_PATH and O_NOFOLLOW a link would be opened itself."""
    try:
        handle = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LinkRefused(path) from None
        raise OSError(error.errno, error.strerror, str(path)) from None
    if stat.S_ISLNK(os.fstat(handle).st_mode):
        os.close(handle)
        raise LinkRefused(path)
    return handle


def _bounded(file: BufferedReader, path: Path, limit: int) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(path, limit)
    return data


def _demand(handle: int, path: Path, wanted: int) -> None:
    mode = os.fstat(handle).st_mode
    if stat.S_IFMT(mode) == wanted:
        return
    if wanted == stat.S_IFDIR:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    raise NotRegular(path, mode)


# --- by the kernel -------------------------------------------------------------------------------


@cache
def _system_call() -> Callable[[int, str, int], tuple[int, int]]:
    """openat2 as a function of folder, name and flags that gives the descriptor and errno; made when it is needed, for
    ctypes takes longer to load than all else here."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(folder: int, name: str, flags: int) -> tuple[int, int]:
        how = struct.pack("=QQQ", flags, 0, _BENEATH | _NO_MAGIC_LINKS)  # struct open_how
        handle = libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(os.fsencode(name)),
            ctypes.c_char_p(how),
            ctypes.c_size_t(len(how)),
        )
        return int(handle), ctypes.get_errno()

    return call


def _openat2(folder: int, name: str, flags: int) -> int:
    handle, number = _system_call()(folder, name, flags)
    if handle < 0:
        raise OSError(number, os.strerror(number), name)
    return handle


@cache
def kernel_resolves() -> bool:
    """Whether openat2 works here: an old kernel says ENOSYS, and an old filter of system calls EPERM."""
    top = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        os.close(_openat2(top, ".", _LOOK))
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def _encodes(name: str) -> bool:
    """Whether there can be a file of that name: half of a surrogate pair that stands for no byte cannot be in one."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _open(top: int, folder: Path, name: str, flags: int) -> int:
    """Open `name` below the folder `top`, whose path is `folder`."""
    if not name or "\0" in name or not _encodes(name):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / ascii(name)))
    if not kernel_resolves():
        return _walk(top, folder, name, flags)
    for _ in range(_TRIES):
        try:
            return _openat2(top, name, flags)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            if error.errno in (errno.EXDEV, errno.ELOOP):
                break
            raise OSError(error.errno, error.strerror, str(folder / name)) from None
    # The kernel refused: walked once more, to say which link it was. What passes here was exchanged meanwhile, or is a
    # link of /proc, and stays refused.
    os.close(_walk(top, folder, name, _LOOK))
    raise Escape(folder, name, name, "another place with each look")


# --- by hand -------------------------------------------------------------------------------------


def _walk(top: int, folder: Path, name: str, flags: int) -> int:
    """What openat2 does, a component at a time: the folders above the current one are kept open, so that `..` cannot
    lead elsewhere after a rename."""
    if name.startswith("/"):
        raise Escape(folder, name, "", name)
    waiting = [part for part in reversed(name.split("/")) if part not in ("", ".")]
    want_folder = name.endswith(("/", "/."))
    above: list[tuple[int, str]] = [(os.dup(top), "")]
    links = parts = 0
    via = ("", "")
    try:
        while waiting:
            parts += 1
            part = waiting.pop()
            if parts > PART_LIMIT:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(folder / name))
            if part == "..":
                if len(above) == 1:
                    raise Escape(folder, name, *via)
                os.close(above.pop()[0])
                continue
            here, shown = above[-1]
            where = f"{shown}{part}"
            try:
                handle = os.open(part, _LOOK | os.O_NOFOLLOW, dir_fd=here)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder / where)) from None
            mode = os.fstat(handle).st_mode
            if stat.S_ISLNK(mode):
                try:
                    target = os.readlink("", dir_fd=handle)
                finally:
                    os.close(handle)
                links += 1
                if links > LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder / name))
                if target.startswith("/"):
                    raise Escape(folder, name, where, target)
                via = (where, target)
                want_folder = want_folder or (not waiting and target.endswith(("/", "/.")))
                waiting += [one for one in reversed(target.split("/")) if one not in ("", ".")]
                continue
            if not waiting and not (want_folder and not stat.S_ISDIR(mode)):
                try:
                    return _last(here, part, handle, flags)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, str(folder / where)) from None
            if not stat.S_ISDIR(mode):
                os.close(handle)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder / where))
            above.append((handle, f"{where}/"))
        return os.open(".", flags, dir_fd=above[-1][0])
    finally:
        for handle, _ in above:
            os.close(handle)


def _last(folder: int, part: str, seen: int, flags: int) -> int:
    """The last component, which was just `seen` (the descriptor is kept or closed here): opened as asked for."""
    if flags == _LOOK:
        return seen
    try:
        handle = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
        if not os.path.samestat(os.fstat(handle), os.fstat(seen)):
            os.close(handle)
            raise OSError(errno.EAGAIN, "it was exchanged meanwhile")
        return handle
    finally:
        os.close(seen)
