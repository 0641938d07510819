"""Errors of opening a file below a folder: escape, not regular, link, too large."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Final

from pipeline.errors import RecipeError

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class PathEscape(OSError):
    """A name leads out of the folder.

    `link` is the path of the link that does, below the folder ("": the name itself), `target` its target.
    """

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
        """Hint for a person: to move the file, or to put a file or a relative link there."""
        if not self.link:
            return "move the file into that folder"
        if self.target.startswith("/"):
            return "copy the file there; a link must be relative and stay in the folder"
        return "copy the file there, or link to one in the folder"


class NotRegular(OSError):
    """A path that is opened as a file and is not a regular file."""

    def __init__(self, path: Path, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        super().__init__(code, f"it is {kind}, not a file", str(path))


class LinkRefused(OSError):
    """A component of a path is a link, and none may be."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ELOOP, "a symbolic link is not allowed here", str(path))


class TooLarge(OSError):
    """A file has more than `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.limit = limit
        super().__init__(errno.EFBIG, f"it has more than {limit} bytes", str(path))


def escape_error(error: PathEscape, place: str | None) -> RecipeError:
    """Convert a PathEscape to a RecipeError at a place in the recipe."""
    return RecipeError("path-escapes", str(error.strerror), place=place, hint=error.way_out)
