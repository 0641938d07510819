"""Errors of a command line that asks for JSON, whose options were not parsed to their end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.typed_command import run_typed


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without recipes of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("build nginx --output= --json", "option-malformed", "--output is empty"),
        ("build --json nginx --trace=", "option-malformed", "--trace is empty"),
        ("build nginx --compression xz --json", "command-line-malformed", "--compression"),
        ("nginx --nosuch --json", "command-line-malformed", "--nosuch"),
        ("store gc --json --nosuch", "command-line-malformed", "--nosuch"),
        ("run nginx -dp 80:80 --json --nosuch", "command-line-malformed", "--nosuch"),
        ("verify dir:m/nginx:latest --json", "command-line-malformed", "--key"),
        ("nosuch --json", "command-unknown", "nosuch"),
    ],
)
def test_they_are_json_on_stdout_and_told_to_people_as_ever(
    words: str, code: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 2
    told = capsys.readouterr()
    value = json.loads(told.out)
    assert value["exit_code"] == 2 and [one["code"] for one in value["error"]] == [code]
    assert said in value["error"][0]["message"] and value["error"][0]["hint"]
    assert said in told.err
    assert run_typed(words.replace("--json", "", 1), monkeypatch) == 2
    assert capsys.readouterr() == ("", told.err)


@pytest.mark.parametrize(
    "words",
    [
        "build nginx --nosuch -- --json",
        "build nginx --nosuch --output --json",
        "run nginx --nosuch -p --json",
        "run nginx --nosuch -dp --json",
        "run nginx --nosuch --json=x",
        "logs --nosuch --json",
        "exec x --nosuch -e --json",
        "nosuch --output --json",
        "store --nosuch --json",
    ],
)
def test_what_the_parser_takes_for_something_else_asks_for_nothing(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_typed(words, monkeypatch) == 2
    assert capsys.readouterr().out == ""
