"""Find, check and render a recipe's templates, mostly in a limited child process.

Texts with only a few names and attributes, which cannot take long, are rendered in this process, all others in the
limited child (`pipeline.limited`). The bounds that count steps and sizes hold in both, and give clearer errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from jinja2 import nodes

from pipeline import limited
from pipeline.beneath import GivenFolder
from pipeline.digest import Digest, identity
from pipeline.errors import Problem, RecipeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.render.bounded_environment import BoundedEnvironment
from pipeline.render.renderer_process import RENDERER
from pipeline.render.step_limit import generate_bounded
from pipeline.render.template_errors import template_errors_explained
from pipeline.render.template_loaders import FileLoader, TemplateRefused

_SIMPLE = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
)
_SIMPLE_MOST = 64
"""Nodes of a template that is rendered in this process: names, attributes, items and text."""
_PARSED_IN_PROCESS = 16 << 10
"""Characters of a template that is parsed in this process, in a fifth of a second at most."""


FORMAT = 1
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
    """A rendered template, and every template file that was read, in order."""

    text: str
    sources: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates in `folders`.

    Folders are searched in order. No link leads out of `given` (default: each of the folders).
    """

    folders: tuple[Path, ...]
    given: GivenFolder | None = None

    def find(self, name: str) -> Path | None:
        """Find the file of a template, or None. Raises RecipeError `template-escapes`."""
        with template_errors_explained(None, "", {}):
            found = FileLoader(self.folders, self.given).find(name)
        return found[1] if found else None

    def suggestions(self, name: str) -> tuple[str, ...]:
        """Names of templates that look like `name`, the nearest first."""
        return FileLoader(self.folders, self.given).suggestions(name)

    def check(self, name: str, *, place: str) -> None:
        """Parse a template without rendering it. Raises RecipeError `template-missing`, `-syntax`, …"""
        loader = FileLoader(self.folders, self.given)
        environment = BoundedEnvironment(loader)
        with template_errors_explained(loader, place, {}):
            source, filename, _ = loader.get_source(environment, name)
            if len(source) > _PARSED_IN_PROCESS:
                _in_child({"check": name, "place": place}, loader, place)
            else:
                environment.parse(source, name, filename)

    def render(
        self, name: str, values: Mapping[str, object], *, place: str, memory: RenderMemory | None = None
    ) -> Rendered:
        """Render the template `name` with `values`.

        `place` is the `file:line` that asks for it. A result in `memory` for the same templates and values is reused.

        The text has LF line ends and, unless it is empty, exactly one at its end. Raises RecipeError:
        `template-missing`, `template-undefined`, `template-syntax`, `template-failed`, `template-escapes`,
        `template-too-large`, `template-runaway`, `template-unreadable`.
        """
        loader = FileLoader(self.folders, self.given)
        known = None if memory is None else _identity(name, values)
        text = None if memory is None or known is None else _recalled(memory.recall(known), loader)
        if text is None:
            loader = FileLoader(self.folders, self.given)
            text = _in_child({"render": name, "values": dict(values), "place": place}, loader, place).rstrip("\n")
            if memory is not None and known is not None and len(text) <= _REMEMBERED_MOST:
                memory.remember(known, {"text": text, "read": loader.contents()})
        return Rendered(text + "\n" if text else "", tuple(Path(path) for path in loader.loaded))


def _identity(name: str, values: Mapping[str, object]) -> Digest:
    """Return the digest of a rendering's inputs, but for the texts of templates."""
    seen = json.dumps(values, sort_keys=True)
    return identity("rendering", FORMAT, template=name, values=Digest.of(seen.encode()), jinja=version("jinja2"))


def _recalled(value: object, loader: FileLoader) -> str | None:
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
    if len(text) > _PARSED_IN_PROCESS:
        _in_child({"check_text": text, "place": place}, None, place)
        return
    with template_errors_explained(None, place, {}):
        BoundedEnvironment(None).parse(text)


def evaluate_template(text: str, values: Mapping[str, object], *, place: str) -> str:
    """Evaluate a text such as `{{ packages['mysql-server'].version }}`, without other templates.

    Raises RecipeError at `place`: `template-undefined`, `template-syntax`, `template-failed`,
    `template-too-large`, `template-runaway`.
    """
    if not is_template(text):
        return text
    if len(text) <= _PARSED_IN_PROCESS and _is_simple(text):
        return evaluate_in_process(text, values, place=place)
    return _in_child({"evaluate": text, "values": dict(values), "place": place}, None, place)


def evaluate_in_process(text: str, values: Mapping[str, object], *, place: str) -> str:
    """Evaluate a text as `evaluate_template` does, in this process."""
    with template_errors_explained(None, place, values):
        template = BoundedEnvironment(None).from_string(text)
        return generate_bounded(lambda: template.generate(dict(values)), None)


def _is_simple(text: str) -> bool:
    """Return whether a text is made of names, attributes and items only.

    Its work is then no more than its length.
    """
    try:
        waiting: list[nodes.Node] = [BoundedEnvironment(None).parse(text)]
    except Exception:  # Whatever it is, the evaluation raises it again, with a place.
        return True
    seen = 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _SIMPLE_MOST or not isinstance(node, _SIMPLE):
            return False
        waiting += node.iter_child_nodes()
    return True


def _in_child(request: Mapping[str, object], loader: FileLoader | None, place: str) -> str:
    """Return the text that the child process renders.

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

    try:
        told = limited.call_limited(RENDERER, request, answer=answer if loader is not None else None)
    except limited.LimitMet as error:
        raise RecipeError(
            "template-runaway",
            f"the template {error}",
            place=place,
            hint="check its loops and its growing texts and lists",
        ) from None
    assert isinstance(told, dict)
    if "text" in told:
        return str(told["text"])
    raise RecipeError.of([Problem(*one) for one in told["problems"]])
