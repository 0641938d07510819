"""Requests for JSON on command lines that were not parsed to their end."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from pipeline.cli.app import app
from pipeline.cli.commands import command_of, import_commands, words_of
from pipeline.errors import UsageError

_OPTION = "--json"


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line has the option `--json`, as its parser would take it.

    Not after `--`, not as the value of another option, and not for a command without that option.
    """
    if _OPTION not in arguments or not (module := command_of(arguments)):
        return False
    flags, valued = _options(module)
    words = words_of(module)
    rest = iter(arguments[len(words) :] if tuple(arguments[: len(words)]) == words else arguments)
    for word in rest:
        if word == "--":
            return False
        if word == _OPTION:
            return _OPTION in flags
        if _takes_next(word, valued):
            next(rest, None)
    return False


def _options(module: str) -> tuple[set[str], set[str]]:
    """Return a command's options without a value, and those with one."""
    import_commands(module)
    found: object = typer.main.get_command(app)
    for word in words_of(module):
        found = getattr(found, "commands", {}).get(word)
    flags: set[str] = set()
    valued: set[str] = set()
    for one in getattr(found, "params", ()):
        (flags if getattr(one, "is_flag", False) else valued).update(name for name in one.opts if name.startswith("-"))
    return flags, valued


def _takes_next(word: str, valued: set[str]) -> bool:
    """Return whether the value of the option that a word is, or ends with, is the next word."""
    if word.startswith("--") or not word.startswith("-"):
        return word in valued
    taking = [at for at, letter in enumerate(word[1:], 1) if f"-{letter}" in valued]
    return bool(taking) and taking[0] == len(word) - 1


def parser_error(ended: SystemExit) -> UsageError | None:
    """Return the error of a command line's parser, which has printed it and ended the process.

    None for another end.
    """
    message = getattr(ended.__context__, "format_message", None)
    if message is None:
        return None
    return UsageError(
        "command-line-malformed", str(message()), hint="`relbuild COMMAND --help` lists the command's options"
    )
