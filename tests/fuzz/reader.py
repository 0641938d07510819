"""The code that a target runs, by digest: executions of different code are never added up."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from pathlib import Path
from types import CodeType, FrameType

from tests.fuzz.targets import attempt

ROOT = Path(__file__).parents[2]
_PIPELINE = str(ROOT / "pipeline")


def reader_digest(name: str, corpus: Path) -> str:
    """Twelve hexadecimal digits: the digest of relbuild's files in which something runs when the target reads what is
    in `corpus`, and of the functions that feed them. Libraries, comments and docstrings do not count."""
    ran = _ran(name, corpus)
    files = {Path(code.co_filename) for code in ran if code.co_filename.startswith(_PIPELINE)}
    fed = {inspect.getsource(code) for code in ran if code.co_filename == inspect.getfile(attempt)}
    found = hashlib.sha256()
    for path in sorted(files):
        found.update(f"{path.relative_to(ROOT)}\0{_syntax(path.read_text())}\0".encode())
    for source in sorted(fed):
        found.update(source.encode() + b"\0")
    return found.hexdigest()[:12]


def _syntax(source: str) -> str:
    """The syntax tree of what runs: without comments, and without strings that stand by themselves."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_docstring(one)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _ran(name: str, corpus: Path) -> set[CodeType]:
    ran: set[CodeType] = set()

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            ran.add(frame.f_code)

    inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
    sys.setprofile(called)
    try:
        for data in inputs:
            attempt(name, data)
    finally:
        sys.setprofile(None)
    return ran
