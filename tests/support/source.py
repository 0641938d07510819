"""The code as trees, parsed once in a process: for tests that read it."""

from __future__ import annotations

import ast
import gc
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipeline"


@cache
def trees() -> Mapping[Path, ast.Module]:
    """Every file of the code with its tree, sorted."""
    gc.disable()  # Millions of nodes that stay: to look for garbage among them takes as long as to parse them.
    try:
        return MappingProxyType({path: ast.parse(path.read_text()) for path in sorted(PIPELINE.rglob("*.py"))})
    finally:
        gc.freeze()
        gc.enable()


@cache
def nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    """Every node of one of these trees, walked once in a process."""
    return tuple(ast.walk(tree))


def dotted(node: ast.expr) -> str:
    """A name with its attributes as it is written (`os.environ`); "…" begins one of something else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join((node.id if isinstance(node, ast.Name) else "…", *reversed(parts)))
