"""Parse and evaluate small texts with Jinja in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import nodes

from pipeline.beneath import GivenFolder
from pipeline.render.bounded_environment import BoundedEnvironment
from pipeline.render.step_limit import generate_bounded
from pipeline.render.template_errors import template_errors_explained
from pipeline.render.template_files import TemplateFiles
from pipeline.render.template_loaders import FileLoader

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
"""Nodes of a template that is rendered in this process: names, attributes, items, text, and numbers added to them."""


def check_file(
    folders: tuple[Path, ...], given: GivenFolder | None, name: str, *, place: str, most: int
) -> TemplateFiles | None:
    """Parse a template file of at most `most` characters; return the loader of a larger one.

    Raises RecipeError as `Templates.check`.
    """
    loader = FileLoader(folders, given)
    environment = BoundedEnvironment(loader)
    with template_errors_explained(loader, place, {}):
        source, filename, _ = loader.get_source(environment, name)
        if len(source) > most:
            return loader
        environment.parse(source, name, filename)
    return None


def check_in_process(text: str, *, place: str) -> None:
    """Parse a text. Raises RecipeError as `check_template`."""
    with template_errors_explained(None, place, {}):
        BoundedEnvironment(None).parse(text)


def evaluate_in_process(text: str, values: Mapping[str, object], *, place: str) -> str:
    """Evaluate a text as `evaluate_template` does, in this process."""
    with template_errors_explained(None, place, values):
        template = BoundedEnvironment(None).from_string(text)
        return generate_bounded(lambda: template.generate(dict(values)), None)


def is_simple(text: str) -> bool:
    """Return whether a text is made of names, attributes, items and added numbers only.

    Its work is then no more than its length: what a number that is written can be added to is a number.
    """
    try:
        waiting: list[nodes.Node] = [BoundedEnvironment(None).parse(text)]
    except Exception:  # Whatever it is, the evaluation raises it again, with a place.
        return True
    seen = 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _SIMPLE_MOST or not (isinstance(node, _SIMPLE) or _adds_number(node)):
            return False
        waiting += node.iter_child_nodes()
    return True


def _adds_number(node: nodes.Node) -> bool:
    """Return whether a node adds a number that is written there, or takes it away."""
    if not isinstance(node, nodes.Add | nodes.Sub) or not isinstance(node.right, nodes.Const):
        return False
    return isinstance(node.right.value, int | float)
