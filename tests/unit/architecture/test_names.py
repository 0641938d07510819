"""A public name means one thing in the whole of relbuild, and a file's name is found once.

A stranger who greps for a name should come to one definition, and who reads a file name in a traceback should know
which one it is.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.source import PIPELINE, trees

TWICE = {
    "DECLARATION": "what a file of model/checks declares, each of its kind",
    "build": "the narrative, and what the Python API calls its use",
    "publish": "the narrative, and what the Python API calls its use",
    "resolve": "the step of a build, and what the Python API calls its use",
    "FORMAT": "the number that a document or a remembered result carries, each of its own",
    "LIMIT": "what a file of model/limits declares, each of its kind",
    "main": "where a program begins",
    "serve": "the entry of a module whose work is done in a child with limits, which is called by this name",
}
"""Public names that several modules define, and why each of them may."""

SAME_FILES = {
    "__init__.py": "a package's door",
}
"""Names of files that stand in several folders, and why."""

NAMED_FOR_COMMANDS = Path("cli/commands")
"""The folder whose files are named for what people type, whatever the file is called that does it."""


def _defined(tree: ast.Module) -> Iterator[str]:
    """The public names that a module defines on its top level: what is imported is defined elsewhere."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


def _several(pairs: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """Those names that stand in more than one place, with the places."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, path in pairs:
        if not name.startswith("_") or name == "__init__.py":
            found[name].add(str(path))
    return {name: sorted(places) for name, places in sorted(found.items()) if len(places) > 1}


def _modules() -> list[tuple[Path, ast.Module]]:
    return [(path.relative_to(PIPELINE), tree) for path, tree in trees().items()]


def test_a_public_name_is_defined_once() -> None:
    found = _several((name, path) for path, tree in _modules() for name in set(_defined(tree)))
    assert {name: places for name, places in found.items() if name not in TWICE} == {}
    assert TWICE.keys() - found.keys() == set(), "allowed, and not needed any more"


def test_a_file_s_name_is_found_once() -> None:
    found = _several((path.name, path) for path, _ in _modules() if path.parent != NAMED_FOR_COMMANDS)
    assert {name: places for name, places in found.items() if name not in SAME_FILES} == {}
    assert SAME_FILES.keys() - found.keys() == set(), "allowed, and not needed any more"


def test_what_is_defined_is_seen() -> None:
    text = "from a import b\nA, B = 1, 2\nC: int = 3\n_d = 4\ndef e(): ...\nclass F:\n    G = 1\n"
    assert sorted(_defined(ast.parse(text))) == ["A", "B", "C", "F", "_d", "e"]
    pairs = [
        ("a", Path("x")),
        ("a", Path("x")),
        ("b", Path("x")),
        ("b", Path("y")),
        ("_c", Path("x")),
        ("_c", Path("y")),
    ]
    assert _several(pairs) == {"b": ["x", "y"]}
