"""The command lines of README and documents are understood: their commands and options are there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.cli.app import app
from pipeline.cli.commands import command_of, import_commands, words_of
from tests.support.source import ROOT

_BEGIN = re.compile(r"(?:^ {4,}(?:\$ )?|&& )(?:ci/)?relbuild ")
_END = re.compile(r"\s+(?:#|&&|&$|\||>)|`")
"""Where a command of relbuild ends, and a comment or the shell's own begins."""


def documented() -> dict[str, str]:
    """Each place in a document, and the words of relbuild's command line there."""
    return {
        f"{path.name}:{number}:{found.end()}": _END.split(line[found.end() :])[0]
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in _BEGIN.finditer(line)
    }


@cache
def top() -> TyperGroup:
    import_commands()
    return typer.main.get_group(app)


def parse(words: list[str]) -> None:
    """Parse a command line; nothing is run, and arguments may lack. Raises as typer does for an unknown option."""
    name = words_of(command_of(words))
    found: TyperCommand | TyperGroup = top()
    for word in name:
        assert isinstance(found, TyperGroup)
        command = found.commands[word]
        assert isinstance(command, TyperCommand | TyperGroup)
        found = command
    options = words[len(name) :] if tuple(words[: len(name)]) == name else words
    found.make_parser(found.context_class(found, info_name="relbuild")).parse_args(list(options))


@pytest.mark.parametrize(("place", "text"), documented().items())
def test_a_documented_command_line_is_understood(place: str, text: str) -> None:
    words = shlex.split(text)
    parse(words)
    if command_of(words) != words[0] and not words[0].startswith("store"):
        # `relbuild RECIPE`: one that comes with relbuild, that `init` writes, or a path as an example.
        known = {path.stem for path in (ROOT / "recipes").glob("*.yaml")} | {"hello"}
        assert Path(words[0]).stem in known or words[0].startswith("-"), place


def test_documents_have_many_and_what_is_unknown_is_noticed() -> None:
    assert len(documented()) > 40 and sum(place.startswith("README") for place in documented()) > 20
    for words in (["build", "nginx", "--no-such-option"], ["publish", "nginx", "--to"]):
        with pytest.raises(Exception, match=r"(?i)option"):
            parse(words)
