"""The narratives that docs/architecture.md shows, held against the order in which the code calls their stages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROWS = re.findall(
    r"^\| `(\w+)` \| `(pipeline/\S+)` \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE
)


def _calls(name: str, functions: dict[str, ast.FunctionDef], within: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of what a function calls, in the order of the text; those of its own file are followed."""
    for node in _in_order(functions[name]):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        yield called
        if isinstance(node.func, ast.Name) and called in functions and called not in (*within, name):
            yield from _calls(called, functions, (*within, name))


def _in_order(node: ast.AST) -> Iterator[ast.Call]:
    """The calls below a node; arguments are called before what they are given to."""
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)
    if isinstance(node, ast.Call):
        yield node


@pytest.mark.parametrize(("name", "file", "shown"), ROWS, ids=[f"{name} in {file}" for name, file, _ in ROWS])
def test_the_document_shows_the_stages_in_their_order(name: str, file: str, shown: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    stages = re.findall("`([^`]+)`", shown)
    called = [one for one in _calls(name, functions) if one in stages]
    assert list(dict.fromkeys(called)) == stages


def test_every_narrative_is_shown() -> None:
    assert {name for name, _, _ in ROWS} == {"build", "publish", "push", "nightly", "plan_night"}


@pytest.mark.parametrize(("name", "file"), sorted({(name, file) for name, file, _ in ROWS}))
def test_a_narrative_fits_on_one_screen(name: str, file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert function.end_lineno is not None and function.end_lineno - function.lineno < 50
