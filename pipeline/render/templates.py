"""Find, check and render a recipe's templates, mostly in a limited child process.

Texts with only a few names and attributes, which cannot take long, may be rendered in this process, all others are in
the limited child (`pipeline.limited`). The bounds that count steps and sizes hold in both, and give clearer errors.
`jinja2` is imported here only where this process parses or renders itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pipeline import limited
from pipeline.beneath import GivenFolder
from pipeline.digest import Digest, identity
from pipeline.errors import EnvironmentLacking, Problem, RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.render.renderer_process import RENDERER
from pipeline.render.template_files import TemplateFiles, TemplateRefused

PARSED_IN_PROCESS = 16 << 10
"""Characters of a template that is parsed in this process, in a fifth of a second at most."""
_IN_PROCESS = "pipeline.render.small_templates"
"""Module with which this process parses and renders."""

FORMAT = 2
"""To be raised when the same template and values give another text."""
_REMEMBERED_MOST = 1 << 18
"""Characters of a text that is remembered."""


class RenderMemory(Protocol):
    """Protocol of a store of results by identity."""

    def recall(self, identity: Digest, /) -> object | None:
        """Return a remembered JSON value."""

    def remember(self, identity: Digest, value: object, /) -> None:
        """Keep a JSON value."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered template, and every template file that was read, in order.

    `contents` are the names of templates that were looked for, also of those that are not there, and the digest of
    what was read, or `missing`, sorted.
    """

    text: str
    sources: tuple[Path, ...]
    contents: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates in `folders`.

    Folders are searched in order. No link leads out of `given` (default: each of the folders).
    """

    folders: tuple[Path, ...]
    given: GivenFolder | None = None

    def find(self, name: str) -> Path | None:
        """Find the file of a template, or None. Raises RecipeError `template-escapes`."""
        from pipeline.render.template_errors import template_errors_explained

        with template_errors_explained(None, "", {}):
            found = TemplateFiles(self.folders, self.given).find(name)
        return found[1] if found else None

    def suggestions(self, name: str) -> tuple[str, ...]:
        """Names of templates that look like `name`, the nearest first."""
        return TemplateFiles(self.folders, self.given).suggestions(name)

    def check(self, name: str, *, place: str) -> None:
        """Parse a template without rendering it. Raises RecipeError `template-missing`, `-syntax`, …"""
        from pipeline.render.small_templates import check_file

        if (loader := check_file(self.folders, self.given, name, place=place, most=PARSED_IN_PROCESS)) is not None:
            _in_child({"check": name, "place": place}, loader, place)

    def render(
        self, name: str, values: Mapping[str, object], *, place: str, memory: RenderMemory | None = None
    ) -> Rendered:
        """Render the template `name` with `values`.

        `place` is the `file:line` that asks for it. A result in `memory` for the same templates and values is reused.

        The text has LF line ends and, unless it is empty, exactly one at its end. Raises RecipeError:
        `template-missing`, `template-undefined`, `template-syntax`, `template-failed`, `template-escapes`,
        `template-too-large`, `template-runaway`, `template-unreadable`.
        """
        loader = TemplateFiles(self.folders, self.given)
        known = None if memory is None else _identity(name, values)
        text = None if memory is None or known is None else _recalled(memory.recall(known), loader)
        if text is None:
            loader = TemplateFiles(self.folders, self.given)
            text = _in_child({"render": name, "values": dict(values), "place": place}, loader, place).rstrip("\n")
            if memory is not None and known is not None and len(text) <= _REMEMBERED_MOST:
                memory.remember(known, {"text": text, "read": loader.contents()})
        contents = tuple(sorted(loader.contents().items()))
        return Rendered(text + "\n" if text else "", tuple(Path(path) for path in loader.loaded), contents)


def _identity(name: str, values: Mapping[str, object]) -> Digest:
    """Return the digest of a rendering's inputs, but for the texts of templates."""
    seen = json.dumps(values, sort_keys=True)
    from importlib.metadata import version  # Not above: what only reads a recipe's templates needs none of it.

    return identity("rendering", FORMAT, template=name, values=Digest.of(seen.encode()), jinja=version("jinja2"))


def _recalled(value: object, loader: TemplateFiles) -> str | None:
    """Return a remembered text if all templates that were read or looked for are unchanged."""
    if not isinstance(value, dict) or not isinstance(value.get("read"), dict):
        return None
    try:
        for name in value["read"]:
            loader.text(name)
    except TemplateRefused:
        return None
    text = value.get("text")
    return text if isinstance(text, str) and loader.contents() == value["read"] else None


def is_template(text: str) -> bool:
    """Return True if `text` has anything that `evaluate_template` would replace."""
    return "{{" in text or "{%" in text or "{#" in text


def check_template(text: str, *, place: str) -> None:
    """Parse a small template without evaluating it. Raises RecipeError `template-syntax`."""
    if not is_template(text):
        return
    if len(text) > PARSED_IN_PROCESS:
        _in_child({"check_text": text, "place": place}, None, place)
        return
    from pipeline.render.small_templates import check_in_process

    check_in_process(text, place=place)


def evaluate_template(text: str, values: Mapping[str, object], *, place: str) -> str:
    """Evaluate a text such as `{{ packages['mysql-server'].version }}`, without other templates.

    Raises RecipeError at `place`: `template-undefined`, `template-syntax`, `template-failed`,
    `template-too-large`, `template-runaway`.
    """
    if not is_template(text):
        return text
    request = {"evaluate": text, "values": dict(values), "place": place}
    if len(text) > PARSED_IN_PROCESS:
        return _in_child(request, None, place)
    if _IN_PROCESS not in sys.modules and limited.is_loading(RENDERER):
        # The child that renders files is there, and this process is spared the import.
        try:
            return _ask_child(request, None)
        except (limited.ChildCrashed, EnvironmentLacking):
            pass
        except limited.LimitMet as error:  # It would be met again.
            raise _runaway(error, place) from None
        except RecipeError as error:
            if error.code == "template-runaway":
                raise
    from pipeline.render.small_templates import evaluate_in_process, is_simple

    return evaluate_in_process(text, values, place=place) if is_simple(text) else _in_child(request, None, place)


def _in_child(request: Mapping[str, object], loader: TemplateFiles | None, place: str) -> str:
    """Return the text that the child process renders. Raises RecipeError."""
    try:
        return _ask_child(request, loader)
    except limited.LimitMet as error:
        raise _runaway(error, place) from None


def _runaway(error: limited.LimitMet, place: str) -> RecipeError:
    return RecipeError(
        "template-runaway",
        f"the template {error}",
        place=place,
        hint="check its loops and its growing texts and lists",
    )


def _ask_child(request: Mapping[str, object], loader: TemplateFiles | None) -> str:
    """Return the text that the child process renders. Raises RecipeError, LimitMet.

    The child reads no files: it asks for templates by name, and this process reads them.
    """

    def answer(question: object) -> object:
        assert loader is not None
        assert isinstance(question, dict)
        if "hint" in question:
            return loader.hint(str(question["hint"]))
        try:
            found = loader.text(str(question["text"]))
        except TemplateRefused as refused:
            problem = refused.problem
            return {"code": problem.code, "message": problem.message, "hint": problem.hint}
        if found is None:
            return None
        return [found.text, found.path, found.shown]

    told = limited.call_limited(RENDERER, request, answer=answer if loader is not None else None)
    assert isinstance(told, dict)
    if "text" in told:
        return str(told["text"])
    raise RecipeError.of([Problem(*one) for one in told["problems"]])
