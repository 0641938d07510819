"""Open and read regular files below a folder, refusing links and names that lead out."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Final

from pipeline.beneath.open_errors import (
    LinkRefused,
    NotRegular,
    PathEscape,
    TooLarge,
)
from pipeline.beneath.path_resolution import PATH_FLAGS, open_below, open_without_waiting
from pipeline.beneath.read_log import note_looked, note_opened, note_read
from pipeline.lazy_dataclasses import dataclass

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder below which files are opened.

    `path` itself is trusted and may lead through links.
    """

    path: Path

    def open(self, name: str | PurePath) -> BufferedReader:
        """Open the regular file `name` for reading.

        Raises OSError: PathEscape, NotRegular, FileNotFoundError …
        """
        file = self._open(name)
        note_opened(self.path / name, file.fileno())
        return file

    def _open(self, name: str | PurePath) -> BufferedReader:
        try:
            handle = self._handle(name, wanted=stat.S_IFREG)
        except (FileNotFoundError, NotADirectoryError):
            note_looked(self.path / name, 0)
            raise
        return os.fdopen(handle, "rb")

    def open_without_links(self, name: str | PurePath) -> BufferedReader:
        """Open a regular file for reading, following no link, not even one within the folder.

        Raises OSError: LinkRefused, PathEscape, NotRegular, FileNotFoundError …
        """
        *above, last = _plain_parts(self.path, os.fspath(name))
        here = os.open(self.path, PATH_FLAGS | os.O_DIRECTORY)
        try:
            for part in above:
                inner = _open_component(here, part, PATH_FLAGS, self.path / name)
                os.close(here)
                here = inner
            handle = _open_component(here, last, _READ, self.path / name)
        finally:
            os.close(here)
        try:
            _demand(handle, self.path / name, stat.S_IFREG)
            note_opened(self.path / name, handle)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

    def read(self, name: str | PurePath, limit: int) -> bytes:
        """Return the content of the regular file `name`, which has at most `limit` bytes.

        The limit holds also while the file grows. Raises as `open`, and TooLarge.
        """
        with self._open(name) as file:
            return _bounded(file, self.path / name, limit)

    def open_folder(self, name: str | PurePath) -> int:
        """Open the folder `name` as a descriptor, which the caller closes. Raises as `open`."""
        return self._handle(name, wanted=stat.S_IFDIR)

    def has_file(self, name: str | PurePath) -> bool:
        """Return whether `name` is a regular file. Raises PathEscape."""
        return self._has(name, stat.S_IFREG)

    def has_folder(self, name: str | PurePath) -> bool:
        """Return whether `name` is a folder. Raises PathEscape."""
        return self._has(name, stat.S_IFDIR)

    def check(self, name: str | PurePath) -> None:
        """Raise PathEscape if `name` leads out of the folder, also if nothing is there."""
        self._has(name, None)

    def _has(self, name: str | PurePath, kind: int | None) -> bool:
        try:
            handle = self._look(name)
        except PathEscape:
            raise
        except OSError:
            note_looked(self.path / name, 0)
            return False
        try:
            mode = os.fstat(handle).st_mode
            note_looked(self.path / name, mode)
            return kind is None or stat.S_IFMT(mode) == kind
        finally:
            os.close(handle)

    def _look(self, name: str | PurePath) -> int:
        top = os.open(self.path, PATH_FLAGS | os.O_DIRECTORY)
        try:
            return open_below(top, self.path, os.fspath(name), PATH_FLAGS)
        finally:
            os.close(top)

    def _handle(self, name: str | PurePath, *, wanted: int) -> int:
        """Open `name` as a file of the type `wanted`.

        Its type is checked before it is opened, because opening a device may have effects; and again afterwards.
        """
        path = self.path / name
        flags = _READ | (os.O_DIRECTORY if wanted == stat.S_IFDIR else 0)
        top = os.open(self.path, PATH_FLAGS | os.O_DIRECTORY)
        try:
            seen = open_below(top, self.path, os.fspath(name), PATH_FLAGS)
            try:
                _demand(seen, path, wanted)
            finally:
                os.close(seen)
            handle = open_below(top, self.path, os.fspath(name), flags)
        finally:
            os.close(top)
        try:
            _demand(handle, path, wanted)
        except BaseException:
            os.close(handle)
            raise
        return handle


@dataclass(frozen=True, slots=True)
class GivenFolder:
    """The folder of a recipe that a person named, and the folder above it.

    Files in `folder` are opened below it. Paths with `..` are opened below the folder above, where `templates/` and
    shared recipes may be (right below the file system's root: only below `/templates`); no name and no link leads
    further.
    """

    folder: Path

    def place(self, path: Path) -> tuple[Folder, str]:
        """Return the folder below which `path` is opened, and its name there. Raises PathEscape."""
        whole = Path(os.path.abspath(path))  # noqa: PTH100  not resolved: links are followed when it is opened
        inner = Path(os.path.abspath(self.folder))  # noqa: PTH100
        above = inner.parent
        outer = above / "templates" if above == Path(above.anchor) else above
        for folder in (inner, outer):
            if whole.is_relative_to(folder):
                return Folder(folder), os.fspath(whole.relative_to(folder))
        raise PathEscape(outer, os.path.relpath(whole, inner), "", "")

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


def read_file(path: Path, limit: int) -> bytes:
    """Read a regular file that a person named, following links anywhere.

    It has at most `limit` bytes. Raises OSError: NotRegular, TooLarge, FileNotFoundError …
    """
    with _open_regular(path) as file:
        return _bounded(file, path, limit)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file that a person named for reading, following links anywhere.

    Raises OSError: NotRegular, FileNotFoundError …
    """
    file = _open_regular(path)
    note_opened(path, file.fileno())
    return file


def read_unlogged(path: Path, limit: int) -> bytes:
    """Read a regular file as `read_file`, but note nothing: it is no input.

    For what a build made itself. Raises as `read_file`.
    """
    with open_unlogged(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(path, limit)
    return data


def _open_regular(path: Path) -> BufferedReader:
    try:
        return open_unlogged(path)
    except (FileNotFoundError, NotADirectoryError):
        note_looked(path, 0)
        raise


def open_unlogged(path: Path) -> BufferedReader:
    """Open a regular file as `open_file`, but note nothing. Raises as `open_file`."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise NotRegular(path, mode)
    handle = open_without_waiting(path, _READ)
    try:
        _demand(handle, path, stat.S_IFREG)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _plain_parts(folder: Path, name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise PathEscape(folder, name, "", name)
    if not parts or "\0" in name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return parts


def _open_component(folder: int, part: str, flags: int, path: Path) -> int:
    """Open one component of a path; raise LinkRefused if it is a link.

    With O_PATH and O_NOFOLLOW a link itself is opened, so its type is checked.
    """
    try:
        if flags & os.O_PATH:
            handle = os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
        else:
            handle = open_without_waiting(part, flags | os.O_NOFOLLOW, dir_fd=folder)
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
    note_read(path, data)
    return data


def _demand(handle: int, path: Path, wanted: int) -> None:
    mode = os.fstat(handle).st_mode
    if stat.S_IFMT(mode) == wanted:
        return
    if wanted == stat.S_IFDIR:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    raise NotRegular(path, mode)
