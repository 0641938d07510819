"""Readers of foreign bytes, on what the fuzzing starts from and on what it has found: their own error, or an answer."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import RelbuildError
from pipeline.render import evaluate_template
from tests.fuzz.targets import TARGETS, attempt

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


NESTED = (b"[", b'{"a":', b"- ", b"<a>", b"{{", b"(", b"a=[")


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(CORPUS)) for path in FILES])
def test_a_reader_raises_nothing_but_its_own_error(path: Path) -> None:
    data = path.read_bytes()
    attempt(path.parent.name, data)
    attempt(path.parent.name, data[: len(data) // 2])
    attempt(path.parent.name, data.replace(b"1", b"9" * 5000, 1))
    attempt(path.parent.name, b"\xff" + data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_bears_what_is_nested_without_end(name: str) -> None:
    for piece in NESTED:
        attempt(name, piece * 20_000)
    attempt(name, b"")
    attempt(name, b"\0" * 20_000)


def test_a_template_in_its_process_raises_nothing_but_its_own_error() -> None:
    """`rendering` is the same without the process, which the engine cannot look into."""
    texts = [path.read_text() for path in FILES if path.parent.name == "rendering"]
    for text in (
        *texts,
        *(f"{{% {text}" for text in texts),
        *(piece.decode() * 20_000 for piece in NESTED),
        "\0",
        "\udcff",
    ):
        with contextlib.suppress(RelbuildError):
            evaluate_template(text, {"values": {"n": 3}}, place="recipe.yaml:1")


def test_every_target_begins_with_something() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


def test_the_page_on_reliability_shows_the_results_that_were_kept() -> None:
    table = CORPUS.parents[2] / "ci" / "faults.d" / "table.py"
    assert subprocess.run([sys.executable, table, "--check"], check=False).returncode == 0
