"""The first line of each docstring says what the thing is or does, and fits into a list."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from tests.support.source import PIPELINE, nodes, trees

LONGEST = 90
RIDDLE = re.compile(r"(What|How|Where|Who|By|Whether|Is|Are|Do|Does|When|Why|Which)\b")
"""Words that begin a question, or half a sentence, and not a noun phrase or an imperative."""


def _wrong(module: ast.Module) -> Iterator[str]:
    """The first lines in a module that break the rule, with what they are of."""
    for node in nodes(module):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = (ast.get_docstring(node) or "").partition("\n")[0]
        name = "the module" if isinstance(node, ast.Module) else node.name
        if RIDDLE.match(first):
            yield f"{name}: begins with '{first.split()[0]}': {first}"
        if len(first) > LONGEST:
            yield f"{name}: {len(first)} characters, at most {LONGEST}: {first}"


def _wrong_of_names(module: ast.Module) -> Iterator[str]:
    """First lines of the strings that describe a constant or a field, after its assignment, that break the rule."""
    for node in nodes(module):
        body = getattr(node, "body", [])  # One expression, and no list, in a lambda.
        for assigned, said in itertools.pairwise(body if isinstance(body, list) else []):
            match assigned, said:
                case ((ast.Assign() | ast.AnnAssign()), ast.Expr(ast.Constant(str(text)))) if RIDDLE.match(text):
                    yield f"line {said.lineno}: begins with '{text.split()[0]}': {text.partition(chr(10))[0]}"


def test_first_lines_say_what_a_thing_is() -> None:
    wrong = [
        f"{path.relative_to(PIPELINE)}, {line}"
        for path, tree in trees().items()
        for line in (*_wrong(tree), *_wrong_of_names(tree))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_riddle_and_a_long_line_are_found() -> None:
    text = f'"""How it is done."""\nclass A:\n    """{"x" * (LONGEST + 1)}"""\n'
    assert [line.partition(":")[0] for line in _wrong(ast.parse(text))] == ["the module", "A"]
    text = 'A = 1\n"""Whether so."""\nclass C:\n    b: int\n    """What it is."""\n    """How."""\n'
    assert [line.partition(":")[0] for line in _wrong_of_names(ast.parse(text))] == ["line 2", "line 5"]
