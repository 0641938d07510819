"""Find and read template files below folders, never outside them.

Nothing of `jinja2` is imported here.
"""

from __future__ import annotations

import difflib
from pathlib import Path, PurePosixPath

from pipeline.beneath import GivenFolder, PathEscape, TooLarge
from pipeline.digest import Digest
from pipeline.errors import Problem
from pipeline.lazy_dataclasses import dataclass

TEMPLATE_LIMIT = 1 << 20
"""Bytes of a template file."""
_SUGGESTION_CANDIDATES = 1000
"""Names of templates that are compared with a missing one for a suggestion."""

_ESCAPE_HINT = "write the path relative to the template folder, without '..'"


class TemplateRefused(Exception):
    """A template must not, or cannot, be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class TemplateText:
    """The text of the template file `path`, which messages call `shown`."""

    text: str
    path: str
    shown: str


class TemplateFiles:
    """The template files in folders, searched in order, and those that were read.

    No link leads out of `given` (default: each of the folders).
    """

    def __init__(self, folders: tuple[Path, ...], given: GivenFolder | None) -> None:
        self.folders = folders
        self.loaded: dict[str, TemplateText] = {}
        self._given = given
        self._contents: dict[str, str] = {}

    def find(self, name: str) -> tuple[Path, Path] | None:
        """Find the folder and the file of `name`. Raises TemplateRefused `template-escapes`."""
        if not _is_text(name):
            return None
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name or "\\" in name:
            message = f"template '{name[:200]}' is outside the template folders"
            raise TemplateRefused(Problem("template-escapes", message, hint=_ESCAPE_HINT))
        for folder in self.folders:
            try:
                if self._within(folder).has_file(folder / parts):
                    return folder, folder / parts
            except PathEscape as error:
                message = f"template '{name}': {error.strerror}"
                raise TemplateRefused(Problem("template-escapes", message, hint=error.way_out)) from None
        return None

    def contents(self) -> dict[str, str]:
        """Return the digest, or `missing`, of each template that was looked for, by name."""
        return dict(self._contents)

    def look_for(self, name: str) -> None:
        """Note in `contents` the present content of `name`; `refused` if it cannot be read."""
        try:
            self.text(name)
        except TemplateRefused:
            self._contents[name] = "refused"

    def text(self, name: str) -> TemplateText | None:
        """Return the template `name`, None if there is none. Raises TemplateRefused."""
        if _is_text(name):
            self._contents[name] = "missing"
        found = self.find(name)
        if found is None:
            return None
        folder, path = found
        try:
            data = self._within(folder).read(path, TEMPLATE_LIMIT)
            text = TemplateText(
                data.decode("utf-8-sig"), str(path), f"{folder.name}/{path.relative_to(folder).as_posix()}"
            )
        except TooLarge:
            message = f"'{name}' is larger than {TEMPLATE_LIMIT >> 20} MiB"
            raise TemplateRefused(
                Problem("template-too-large", message, hint="use 'source', which copies the file unchanged")
            ) from None
        except OSError as error:
            raise TemplateRefused(
                Problem("template-unreadable", f"'{name}' cannot be read: {error.strerror}")
            ) from None
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise TemplateRefused(Problem("template-unreadable", f"'{name}' is not UTF-8 in line {line}")) from None
        self._contents[name] = str(Digest.of(data))
        self.loaded.setdefault(text.path, text)
        return text

    def hint(self, name: str) -> str:
        """Return a hint for the error that the template `name` is missing."""
        near = self.suggestions(name)
        folders = ", ".join(f"{folder.name}/" for folder in self.folders)
        return f"did you mean '{near[0]}'?" if near else f"searched folders: {folders or 'none'}"

    def suggestions(self, name: str) -> tuple[str, ...]:
        """Names of templates that look like `name`, the nearest first."""
        known = sorted(
            path.relative_to(folder).as_posix()
            for folder in self.folders
            for form in ("*.j2", "*/*.j2")
            for path in folder.glob(form)
            if path.is_file()
        )[:_SUGGESTION_CANDIDATES]
        stems = {path.removesuffix(".j2"): path for path in known}
        return tuple(stems[near] for near in difflib.get_close_matches(name[:200].removesuffix(".j2"), stems, n=3))

    def _within(self, folder: Path) -> GivenFolder:
        return self._given or GivenFolder(folder)


def _is_text(name: str) -> bool:
    """Return False for half a surrogate pair, which is in no file's name.

    A template can write it as an escape.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
