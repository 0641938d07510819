"""Finding templates in folders, rendering them, and saying in which line of which file one went wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any

from jinja2 import BaseLoader, Environment, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import SecurityError, TemplateError

from pipeline.beneath import Escape, Given, TooLarge
from pipeline.errors import RecipeError
from pipeline.render.bounded import FILTERS, TEXT_LIMIT, BoundedEnvironment, NameMissing, Runaway

TEMPLATE_LIMIT = 1 << 20
"""Bytes of a template file."""
STEP_LIMIT = 500_000
"""Lines of template code that one rendering may run: a second's work at most."""

_Trace = Callable[[FrameType, str, object], Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template, and every template file that took part, in the order in which they were read."""

    text: str
    sources: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates in `folders`; a name is looked for in the first folder first. `given` is what no link leads out of
    (default: each of the folders)."""

    folders: tuple[Path, ...]
    given: Given | None = None

    def find(self, name: str) -> Path | None:
        """The file that `name` stands for, or None. Raises RecipeError `template-escapes`."""
        try:
            return _Loader(self.folders, self.given).find(name)
        except _Escapes as error:
            raise RecipeError("template-escapes", str(error), hint=error.way_out) from None

    def suggestions(self, name: str) -> tuple[str, ...]:
        """Names of templates that look like `name`, the nearest first."""
        known = sorted(
            path.relative_to(folder).as_posix()
            for folder in self.folders
            for form in ("*.j2", "*/*.j2")
            for path in folder.glob(form)
            if path.is_file()
        )
        stems = {path.removesuffix(".j2"): path for path in known}
        return tuple(stems[near] for near in difflib.get_close_matches(name.removesuffix(".j2"), stems, n=3))

    def check(self, name: str, *, place: str) -> None:
        """Parse a template without rendering it. Raises RecipeError `template-missing`, `-syntax`, …"""
        loader = _Loader(self.folders, self.given)
        environment = BoundedEnvironment(loader)
        with _explained(loader, place, {}):
            source, filename, _ = loader.get_source(environment, name)
            environment.parse(source, name, filename)

    def render(self, name: str, values: Mapping[str, object], *, place: str) -> Rendered:
        """Render the template `name` with `values`; `place` is who asked for it.

        The text has LF line ends and, unless it is empty, exactly one at its end. Raises RecipeError:
        `template-missing`, `template-undefined`, `template-syntax`, `template-failed`, `template-escapes`,
        `template-too-large`, `template-runaway`, `template-unreadable`.
        """
        loader = _Loader(self.folders, self.given)
        environment = BoundedEnvironment(loader)
        with _explained(loader, place, values):
            template = environment.get_template(name)
            text = _generate(lambda: template.generate(dict(values)), loader)
        text = text.rstrip("\n")
        return Rendered(text + "\n" if text else "", tuple(loader.sources))


def is_template(text: str) -> bool:
    """Does `text` hold anything that `evaluate` would replace?"""
    return "{{" in text or "{%" in text or "{#" in text


def check(text: str, *, place: str) -> None:
    """Parse a small template without evaluating it. Raises RecipeError `template-syntax`."""
    with _explained(None, place, {}):
        BoundedEnvironment(None).parse(text)


def evaluate(text: str, values: Mapping[str, object], *, place: str) -> str:
    """Evaluate a small template such as `{{ packages['mysql-server'].version }}`, which names no other.

    Raises RecipeError at `place`: `template-undefined`, `template-syntax`, `template-failed`,
    `template-too-large`, `template-runaway`.
    """
    if not is_template(text):
        return text
    with _explained(None, place, values):
        template = BoundedEnvironment(None).from_string(text)
        return _generate(lambda: template.generate(dict(values)), None)


class _Escapes(Exception):
    """A template's name leads out of its folders."""

    def __init__(self, message: str, way_out: str) -> None:
        super().__init__(message)
        self.way_out = way_out


class _Unreadable(Exception):
    """A template file cannot be read: `code` is the error's code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


_ESCAPE_HINT = "name templates relative to the template folder, without '..'"


class _Loader(BaseLoader):
    """Loads from folders, never from outside them, and remembers what it read."""

    def __init__(self, folders: tuple[Path, ...], given: Given | None) -> None:
        self.folders = folders
        self._given = given
        self.sources: list[Path] = []

    def find(self, name: str) -> Path | None:
        """The file for `name`. Raises _Escapes for one outside the folders."""
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts or "\0" in name or "\\" in name:
            raise _Escapes(f"the template '{name}' lies outside the template folders", _ESCAPE_HINT)
        for folder in self.folders:
            candidate = folder / parts
            try:
                if self.given(folder).has_file(candidate):
                    return candidate
            except Escape as error:
                raise _Escapes(f"the template '{name}': {error.strerror}", error.way_out) from None
        return None

    def given(self, folder: Path) -> Given:
        """What a link in a template folder must not lead out of."""
        return self._given or Given(folder)

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        path = self.find(template)
        if path is None:
            raise TemplateNotFound(template)
        try:
            data = self.given(self._folder_of(path)).read(path, TEMPLATE_LIMIT)
        except TooLarge:
            limit = TEMPLATE_LIMIT >> 20
            raise _Unreadable("template-too-large", f"'{template}' is larger than {limit} MiB") from None
        except OSError as error:
            raise _Unreadable("template-unreadable", f"'{template}' cannot be read: {error.strerror}") from None
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise _Unreadable("template-unreadable", f"'{template}' is not UTF-8 in line {line}") from None
        if path not in self.sources:
            self.sources.append(path)
        return text, str(path), lambda: True

    def _folder_of(self, path: Path) -> Path:
        return next((folder for folder in self.folders if path.is_relative_to(folder)), path.parent)

    def shown(self, filename: str) -> str:
        """A template's file as people know it: its name below its folder."""
        folder = self._folder_of(path := Path(filename))
        return f"{folder.name}/{path.relative_to(folder).as_posix()}" if folder in self.folders else path.name

    def files(self) -> set[str]:
        """The file names in compiled code."""
        return {str(path) for path in self.sources}


def _generate(pieces: Callable[[], Iterator[str]], loader: _Loader | None) -> str:
    """All of the output, with its size and the work that it takes bounded."""
    kept: list[str] = []
    size = 0
    with _counted_steps(loader):
        for piece in pieces():
            size += len(piece)
            if size > TEXT_LIMIT:
                raise Runaway(f"the output has more than {TEXT_LIMIT} characters")
            kept.append(piece)
    return "".join(kept)


@contextmanager
def _counted_steps(loader: _Loader | None) -> Iterator[None]:
    """Counts the lines of template code that run in this thread, and stops at STEP_LIMIT.

    Python offers no other hook into a loop that prints nothing. Whoever traces already (a debugger, a
    coverage tool) gets its trace function back afterwards.
    """
    steps = 0

    def ours(frame: FrameType) -> bool:
        # Templates compiled from text are called "<template>" by Jinja.
        name = frame.f_code.co_filename
        return name == "<template>" or (loader is not None and name in loader.files())

    def line(frame: FrameType, event: str, _: object, /) -> _Trace:
        nonlocal steps
        steps += 1
        if steps > STEP_LIMIT:
            raise Runaway(f"the template runs more than {STEP_LIMIT} steps")
        return line

    def call(frame: FrameType, event: str, argument: object, /) -> _Trace | None:
        return line(frame, event, argument) if ours(frame) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _explained(loader: _Loader | None, place: str, values: Mapping[str, object]) -> Iterator[None]:
    """Turns what Jinja raises into a RecipeError with the template's file and line, else with `place`."""
    try:
        yield
    except _Escapes as error:
        raise RecipeError("template-escapes", str(error), place=place, hint=error.way_out) from None
    except _Unreadable as error:
        raise RecipeError(error.code, str(error), place=place) from None
    except TemplateNotFound as error:
        raise _not_found(error, loader, place) from None
    except TemplateSyntaxError as error:
        where = place
        filename = error.filename or error.name  # the lexer gives some errors their file as a name
        if loader is not None and filename:
            where = f"{loader.shown(filename)}:{error.lineno}"
        raise RecipeError(
            "template-syntax",
            f"the template cannot be read: {error.message}",
            place=where,
            hint=_syntax_hint(str(error.message)),
        ) from None
    except NameMissing as error:
        raise _undefined(error, _where(error, loader, place), values) from None
    except RecursionError as error:
        raise RecipeError(
            "template-runaway", "the template calls itself without end", place=_where(error, loader, place)
        ) from None
    except Runaway as error:
        raise RecipeError("template-runaway", str(error), place=_where(error, loader, place)) from None
    except SecurityError as error:
        raise RecipeError(
            "template-failed",
            str(error),
            place=_where(error, loader, place),
            hint="templates see plain values only; use filters instead of methods",
        ) from None
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise RecipeError(
            "template-failed", f"the template fails: {error}", place=_where(error, loader, place)
        ) from None


def _syntax_hint(said: str) -> str:
    if "comment" in said:
        return "'{#' begins a comment; a shell's ${#name} is written {{ '${#' }}name}"
    if "No filter" in said:
        return f"there are the filters {', '.join(FILTERS)}"
    return "what is meant as it stands goes between {% raw %} and {% endraw %}"


def _where(error: BaseException, loader: _Loader | None, place: str) -> str:
    """The innermost line of template code in the traceback, as file:line."""
    if loader is None:
        return place
    files = loader.files()
    found = place
    step: TracebackType | None = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name in files:
            found = f"{loader.shown(name)}:{step.tb_lineno}"
        step = step.tb_next
    return found


def _not_found(error: TemplateNotFound, loader: _Loader | None, place: str) -> RecipeError:
    name = str(error.name or error)
    near: tuple[str, ...] = ()
    if loader is not None:
        near = Templates(loader.folders).suggestions(name)
    folders = ", ".join(f"{folder.name}/" for folder in loader.folders) if loader else ""
    return RecipeError(
        "template-missing",
        f"there is no template '{name}'",
        place=_where(error, loader, place),
        hint=f"did you mean '{near[0]}'?" if near else f"templates are looked for in {folders or 'no folder'}",
    )


def _undefined(error: NameMissing, place: str, values: Mapping[str, object]) -> RecipeError:
    name = error.name
    known: list[str]
    if error.owner is None:
        message = f"'{name}' is undefined"
        known = [*values]
    else:
        owner = error.owner
        known = [str(key) for key in owner] if isinstance(owner, Mapping) else []
        message = f"'{name}' is undefined: nothing of that name is in what it is looked up in"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        hint = f"did you mean '{near[0]}'?"
    elif known:
        hint = f"defined are {', '.join(sorted(known)[:12])}{' …' if len(known) > 12 else ''}"
    else:
        hint = "add it to the recipe's values, or write a default: {{ name | default('…') }}"
    return RecipeError("template-undefined", message, place=place, hint=hint)
