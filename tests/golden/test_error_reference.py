"""docs/errors.md says which errors the code raises. RELBUILD_REGENERATE=1 writes it anew."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.errors import RelbuildError
from tests.support.source import PIPELINE, ROOT, dotted, nodes, trees

DOCUMENT = ROOT / "docs" / "errors.md"

CLASSES: Mapping[str, type[RelbuildError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, RelbuildError)
}

COLLECTED_BY = {
    "layers/scripts.py": "BuildError",
    "mirror/policy.py": "PublicationRefused",
    "oci/validation.py": "VerificationError",
    "mirror/atomic_files.py": "VerificationError",
    "resolve/solver_problems.py": "ResolutionError",
    "render/template_child.py": "RecipeError",
}
"""Files that collect problems which another one raises, by the error's class. Of the others it is what the file raises,
or its room."""

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


@dataclass(frozen=True)
class Raised:
    """A code where it is given: the error's class, and message and hint with `…` for what is put in."""

    code: str
    kind: str
    message: str
    hint: str


def _helpers(trees: Mapping[Path, ast.Module]) -> set[str]:
    """Names of the functions that are given a code as their first argument."""
    found = set()
    for tree in trees.values():
        for node in nodes(tree):
            if isinstance(node, ast.FunctionDef):
                names = [one.arg for one in node.args.args if one.arg != "self"]
                if names[:1] == ["code"] and node.name != "__init__":
                    found.add(node.name)
    return found


@cache
def _raised() -> tuple[Raised, ...]:
    names = {"Problem", "Contradiction", *CLASSES, *_helpers(trees())}
    return tuple(one for path, tree in trees().items() for one in _in_file(path, tree, names))


def _in_file(path: Path, tree: ast.Module, names: set[str]) -> Iterator[Raised]:
    for node in nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func).rpartition(".")[2]
        given = [*node.args[:1], *(one.value for one in node.keywords if one.arg == "code")]
        if name not in names or not given:
            continue
        for code in _texts(given[0]):
            if _CODE.fullmatch(code):
                message = _said(node.args[1]) if len(node.args) > 1 else "…"
                hint = next((_said(one.value) for one in node.keywords if one.arg == "hint"), "")
                for kind in _made(name, path):
                    yield Raised(code, kind, message, hint)


def _made(name: str, path: Path) -> tuple[str, ...]:
    """The errors that a call becomes: a contradiction in a recipe, wherever its kind of check is declared."""
    if name == "Contradiction":
        return ("RecipeError",)
    return (name,) if name in CLASSES else _classes_of(path)


def _texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be."""
    if isinstance(node, ast.IfExp):
        yield from (*_texts(node.body), *_texts(node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def _said(node: ast.expr) -> str:
    """A message as it is written, with `…` for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(one) for one in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _said(node.left) + _said(node.right)
    if isinstance(node, ast.FormattedValue):
        return _said(node.value)
    if isinstance(node, ast.Name):
        return _constants().get(node.id, "…")
    if isinstance(node, ast.Call) and dotted(node.func).partition(".")[0] in _constants():
        return _constants()[dotted(node.func).partition(".")[0]].replace("{}", "…")  # .format
    return "…"


@cache
def _constants() -> dict[str, str]:
    """Texts that modules give a name: those that have one text under it in the whole tree."""
    found: dict[str, set[str]] = {}
    for tree in trees().values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                        found.setdefault(target.id, set()).add(node.value.value)
    return {name: next(iter(texts)) for name, texts in found.items() if len(texts) == 1}


@cache
def _classes_of(path: Path) -> tuple[str, ...]:
    name = path.relative_to(PIPELINE).as_posix()
    if name in COLLECTED_BY:
        return (COLLECTED_BY[name],)
    room = PIPELINE / name.split("/")[0]
    for files in ([path], sorted(room.rglob("*.py")) if room.is_dir() else []):
        found = {kind for file in files for kind in re.findall(r"\b(\w+)\.of\(", file.read_text()) if kind in CLASSES}
        if found and (len(found) == 1 or len(files) == 1):
            return tuple(sorted(found))
    raise AssertionError(f"{name} makes problems: say in COLLECTED_BY which error they become")


def _reference() -> str:
    lines = [
        "# Errors and exit codes",
        "",
        "Made from the code by `tests/golden/test_error_reference.py`. An error has a stable code, a message,",
        "the place in the input, and a hint; with `--json` they are the members `code`, `message`,",
        "`place` and `hint` of each object of `error`, on standard output; `build` of several recipes adds",
        "`built`, with what was finished before.",
        "",
        "## Exit codes",
        "",
        "| code | error | when |",
        "|---:|---|---|",
        "| 0 | | done |",
    ]
    for kind in sorted(CLASSES.values(), key=lambda one: (one.exit_code, one.__name__)):
        if kind is not RelbuildError:
            said = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").rstrip(".")
            lines.append(f"| {kind.exit_code} | `{kind.__name__}` | {said} |")
    lines += [
        "| 70 | `internal-error` | a defect of relbuild |",
        "| 130 | | interrupted |",
        "",
        "## Codes",
        "",
        "Each message of a code, and its hint: the way out. `…` stands for what they name.",
        "",
        "| code | exit code | message | hint |",
        "|---|---:|---|---|",
    ]
    by_code: dict[str, list[Raised]] = {}
    for one in _raised():
        by_code.setdefault(one.code, []).append(one)
    for code, every in sorted(by_code.items()):
        exits = sorted({CLASSES[one.kind].exit_code for one in every})
        first = f"| `{code}` | {', '.join(map(str, exits))} |"
        for message, hint in sorted({(_cell(one.message), _cell(one.hint)) for one in every}):
            lines.append(f"{first} {message} | {hint} |")
            first = "| | |"
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """`text` as a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("`", "").split())


def test_the_reference_of_errors_is_not_stale() -> None:
    if os.environ.get("RELBUILD_REGENERATE"):
        DOCUMENT.write_text(_reference())
    assert DOCUMENT.read_text() == _reference(), "run this test with RELBUILD_REGENERATE=1"


@pytest.mark.parametrize("kind", sorted(CLASSES.keys() - {"RelbuildError"}))
def test_every_kind_of_error_is_raised(kind: str) -> None:
    assert kind in {one.kind for one in _raised()}


def test_the_tree_of_errors_says_their_exit_codes() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+)\s+(\d+) ", errors.__doc__ or ""))
    assert drawn == {name: str(kind.exit_code) for name, kind in CLASSES.items() if kind is not RelbuildError}
