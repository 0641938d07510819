"""Enums and unions are matched exhaustively: what a new member is forgotten in is named, by mypy or here."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType

import pipeline
from tests.support.source import nodes, trees

PIPELINE = Path(pipeline.__file__).parent

OPEN = {
    "model/checks/image_check.py": "keys that are no values by name are judged before",
    "recipes/image_fields.py": "what is no mapping is matched in `_unnamed`",
    "system_errors.py": "an exception is one of any number",
}
"""Files that match what is not closed."""

PARTIAL: dict[str, str] = {
    "model/smoke.py CONTAINED_BY": "a flood of the link is contained by the link",
    "layers/tar_format.py _TYPES": "a whiteout is a file with a name of its own in a layer",
    "recipes/files.py _DEFAULT_MODE": "the others have 0644",
    "site/feed.py _SAID": "entries of the feed are of these alone",
}
"""Tables by a part of an enum, with the reason."""


def _matches() -> Iterator[tuple[str, ast.Match]]:
    """Matches on the members of an enum, or on the classes of a union."""
    for path, tree in trees().items():
        for node in nodes(tree):
            if isinstance(node, ast.Match) and any(_is_member(case.pattern) for case in node.cases):
                yield path.relative_to(PIPELINE).as_posix(), node


def _is_member(pattern: ast.pattern) -> bool:
    match pattern:
        case ast.MatchOr(patterns):
            return all(_is_member(one) for one in patterns)
        case ast.MatchValue(ast.Attribute(ast.Name(name), _)) | ast.MatchClass(ast.Name(name)):
            return name[:1].isupper()
        case _:
            return False


def _ends_in_assert_never(node: ast.Match) -> bool:
    return "assert_never(" in ast.unparse(node.cases[-1])


def test_every_match_ends_with_assert_never() -> None:
    loose = [
        f"{name}:{node.lineno}" for name, node in _matches() if name not in OPEN and not _ends_in_assert_never(node)
    ]
    assert not loose, f"a member more would be forgotten there: {', '.join(loose)}"
    assert OPEN.keys() <= {name for name, node in _matches() if not _ends_in_assert_never(node)}


def _modules() -> Iterator[ModuleType]:
    """Modules with a mapping at their top, whose keys are attributes as members of enums are."""
    for path, tree in trees().items():
        tables = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
        inner = [part for table in tables if table is not None for part in ast.walk(table)]
        keys = [key for part in inner if isinstance(part, ast.Dict) for key in part.keys]
        if any(isinstance(key, ast.Attribute) for key in keys) or any(isinstance(part, ast.DictComp) for part in inner):
            name = path.relative_to(PIPELINE.parent).with_suffix("").as_posix().replace("/", ".")
            yield importlib.import_module(name.removesuffix(".__init__"))


def _tables() -> Iterator[tuple[str, type[Enum], frozenset[Enum]]]:
    """Module-level mappings by enum: where, of what, and the members that they have."""
    for module in _modules():
        for name, value in vars(module).items():
            if not isinstance(value, Mapping) or not value or not module.__file__:
                continue
            kind = type(next(iter(value)))
            if (
                issubclass(kind, Enum)
                and kind.__module__.startswith("pipeline.")
                and f"\n{name}" in Path(module.__file__).read_text()
            ):
                where = Path(module.__file__).relative_to(PIPELINE).as_posix()
                yield f"{where} {name}", kind, frozenset(value)


def test_every_table_by_an_enum_has_all_its_members() -> None:
    found = list(_tables())
    assert len(found) > 5
    for where, kind, keys in found:
        lacking = sorted(member.name for member in frozenset(kind) - keys)
        assert not lacking or where in PARTIAL, f"{where} lacks {', '.join(lacking)} of {kind.__name__}"
    assert PARTIAL.keys() <= {where for where, _, _ in found}
