"""Folders, and what is read below them."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Final

from pipeline.beneath.open_errors import (
    LinkRefused,
    NotRegular,
    PathEscape,
    TooLarge,
)
from pipeline.beneath.path_resolution import PATH_FLAGS, open_below

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, and all that can be read below it.

    `path` itself is the caller's word and may lead through links.
    """

    path: Path

    def open(self, name: str | PurePath) -> BufferedReader:
        """Open the regular file `name` for reading.

        Raises OSError: Escape, NotRegular, FileNotFoundError …
        """
        handle = self._handle(name, wanted=stat.S_IFREG)
        return os.fdopen(handle, "rb")

    def open_without_links(self, name: str | PurePath) -> BufferedReader:
        """Open a file as `open` does, where no link at all is expected.

        Not even a link that stays in the folder is followed. Raises OSError: LinkRefused, NotRegular, FileNotFoundError
        …
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
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise

    def read(self, name: str | PurePath, limit: int) -> bytes:
        """Return the content of the regular file `name`, which has at most `limit` bytes.

        The limit holds also while the file grows. Raises as `open`, and TooLarge.
        """
        with self.open(name) as file:
            return _bounded(file, self.path / name, limit)

    def open_folder(self, name: str | PurePath) -> int:
        """A descriptor of the folder `name`, which the caller closes. Raises as `open`."""
        return self._handle(name, wanted=stat.S_IFDIR)

    def has_file(self, name: str | PurePath) -> bool:
        """Return whether `name` is a regular file reached without leaving the folder. Raises Escape."""
        return self._has(name, stat.S_IFREG)

    def has_folder(self, name: str | PurePath) -> bool:
        """Return whether `name` is a folder, reached without leaving this one. Raises Escape."""
        return self._has(name, stat.S_IFDIR)

    def check(self, name: str | PurePath) -> None:
        """Raise Escape where `name` leads out of the folder.

        It does so whatever `name` names, and also if nothing is there.
        """
        self._has(name, None)

    def _has(self, name: str | PurePath, kind: int | None) -> bool:
        try:
            handle = self._look(name)
        except PathEscape:
            raise
        except OSError:
            return False
        try:
            return kind is None or stat.S_IFMT(os.fstat(handle).st_mode) == kind
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

        It is looked at before it is opened, because opening a device may do something; and again afterwards.
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
    """The folder that was given: `folder`, that of the recipe that a person named.

    What stands in it is opened there. What a recipe names with `..` is opened below the folder above, where
    `templates/` and recipes that others share may stand (right below the file system's root: `/templates` alone); no
    name and no link leads further.
    """

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
    """Return the content of a regular file that a person named, links and all.

    It has at most `limit` bytes. Raises OSError: NotRegular, TooLarge, FileNotFoundError …
    """
    with open_file(path) as file:
        return _bounded(file, path, limit)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file that a person named, for reading.

    Raises OSError: NotRegular, FileNotFoundError …
    """
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
        raise PathEscape(folder, name, "", name)
    if not parts or "\0" in name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    return parts


def _open_component(folder: int, part: str, flags: int, path: Path) -> int:
    """Open one component that is no link.

    With O_PATH and O_NOFOLLOW a link would be opened itself.
    """
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
