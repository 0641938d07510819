"""Validators of paths in the image and beside the recipe, as text."""

from __future__ import annotations

from pathlib import PurePosixPath

from pipeline.model.quantities import Malformed
from pipeline.render import is_template

LONGEST_PATH = 4096
LONGEST_NAME = 255
"""Linux's PATH_MAX and NAME_MAX."""
_KERNEL_FOLDERS = ("/proc", "/sys", "/dev")
"""Mount points of the runtime's file systems, which hide an image's files there."""
_SCRATCH_FOLDERS = ("/run", "/tmp")  # noqa: S108
"""Mount points of scratch file systems, which hide an image's files there."""


def parse_folder(value: object) -> str:
    """Parse a folder in the image, which may be its root. Raises Malformed as `parse_target`."""
    return "/" if value == "/" else parse_target(value)


def parse_target(value: object) -> str:
    """Parse an absolute, plain path in the image.

    Raises Malformed `path-malformed`, `path-unsafe`.
    """
    if not isinstance(value, str) or not value:
        raise Malformed("path-malformed", "a path is expected here", "write an absolute path, such as /etc/my.cnf")
    shown = value[:80]
    _refuse_template(value)
    if not value.startswith("/"):
        raise Malformed("path-malformed", f"the path '{shown}' is relative", f"write it from the root: /{shown}")
    names = value[1:].split("/")
    if ".." in names or "." in names:
        raise Malformed("path-unsafe", f"the path '{shown}' holds '.' or '..'", "write the resolved path")
    if value == "/" or "" in names:
        plain = str(PurePosixPath("/", *[name for name in names if name]))
        way_out = "write a path below the root" if plain == "/" else f"write {plain}"
        raise Malformed("path-malformed", f"the path '{shown}' has empty components", way_out)
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise Malformed("path-unsafe", "the path contains control characters", "remove them")
    if any(name.startswith(".wh.") for name in names):
        raise Malformed(
            "path-unsafe",
            f"the path '{shown}' has a component starting with '.wh.', which marks deletions in image layers",
            "choose another name; to remove a file, use 'remove'",
        )
    if len(value.encode()) > LONGEST_PATH or any(len(name.encode()) > LONGEST_NAME for name in names):
        raise Malformed("path-malformed", f"the path '{shown}…' is too long for Linux", "shorten it")
    if _below(value, _KERNEL_FOLDERS):
        raise Malformed("path-unsafe", f"'{shown}' is a file system of the kernel in containers", "choose another path")
    return value


def parse_file_target(value: object) -> str:
    """Parse a path like `parse_target` that no file system is mounted over when the image runs."""
    path = parse_target(value)
    if _below(path, _SCRATCH_FOLDERS):
        raise Malformed(
            "path-unsafe",
            f"'{path[:80]}' is covered by a tmpfs when the image runs",
            "put it under /usr, /etc or /var; files created at run time need no entry here",
        )
    return path


def parse_link_target(target: str) -> str:
    """Parse what a symlink in the image points to. Raises Malformed `path-malformed`."""
    _refuse_template(target)
    if len(target.encode()) >= LONGEST_PATH:
        raise Malformed("path-malformed", f"the path '{target[:80]}…' is too long for Linux", "shorten it")
    return target


def parse_relative_path(value: object) -> str:
    """Parse a relative path that stays below the recipe's folder. Raises Malformed."""
    if not isinstance(value, str) or not value:
        raise Malformed("path-malformed", "a path is expected here", "write the path of a file in the recipe's folder")
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\0" in value:
        raise Malformed(
            "path-unsafe",
            f"'{value[:80]}' is outside the recipe's folder",
            "put the file into the recipe's folder",
        )
    return str(path)


def _refuse_template(path: str) -> None:
    """Refuse a path in the image that somebody expects to be rendered.

    It would be made with the braces.
    """
    if is_template(path):
        message = f"the path '{path[:80]}' has a template, but paths are taken as they are written"
        raise Malformed("path-malformed", message, "write the path out")


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)
