"""Entry point of the command line: load the command that the arguments name, and run it."""

from __future__ import annotations

import gc
import os
import sys

import typer

from pipeline.cli.app import app, list_app
from pipeline.cli.commands import DEFAULT, command_of, import_commands
from pipeline.cli.messages import answer_error, report_error
from pipeline.cli.refused_plugins import refuse_plugins
from pipeline.cli.standard_streams import drop_stdout
from pipeline.cli.unknown_word import require_recipe
from pipeline.escaping import escape_invisible

_COLLECTED_AFTER = (10_000, 10, 10)
"""Objects made since the last collection, and collections of the younger generation, after which there is one. Python's
own 700 objects are few: what a build makes lives as long as the build, and looking at it took a tenth of its time."""


def run_command_line() -> None:
    """Run the command line. `relbuild RECIPE` is `relbuild build RECIPE`."""
    arguments = sys.argv[1:]
    refuse_plugins()
    if (line := os.environ.get("_RELBUILD_COMPLETE")) is not None:
        _complete(line)
        return
    try:
        loaded = _load(arguments)
        gc.freeze()
        gc.set_threshold(*_COLLECTED_AFTER)
        gc.enable()
        loaded(arguments)
    except SystemExit as ended:
        if _JSON in arguments:
            _answer_parser(ended, arguments)
        raise
    except Exception as error:  # Outside of a command's body: while it was imported or its options were parsed.
        sys.exit(report_error(error, as_json=_JSON in arguments and _asks_for_json(arguments)))


# Python keeps frames in pieces of 16 KiB. A loop that calls at the end of one maps and unmaps the next each time: up to
# 4,000 times in a build, by chance. A frame that asks for more gets a piece that holds all others, too.
run_command_line.__code__ = run_command_line.__code__.replace(co_stacksize=1 << 16)


_JSON = "--json"


def _asks_for_json(arguments: list[str]) -> bool:
    from pipeline.cli.json_request import asks_for_json

    try:
        return asks_for_json(arguments)
    except Exception:  # What failed before, such as the import of the command, is what is told.
        return False


def _answer_parser(ended: SystemExit, arguments: list[str]) -> None:
    """Print the error of the command line's parser as JSON, if it has one and JSON is asked for."""
    from pipeline.cli.json_request import parser_error

    error = parser_error(ended)
    if error is not None and _asks_for_json(arguments):
        answer_error(error)


def _complete(line: str) -> None:
    """Print what completes a line, and nothing of what goes wrong: people are still typing."""
    from pipeline.cli.completion import completion_lines

    try:
        for found in completion_lines(line):
            print(escape_invisible(found, lines=False))
        sys.stdout.flush()
    except OSError:
        drop_stdout()
    except (Exception, SystemExit):
        return


_ALIASES = {"--version": "version", "-V": "version"}
"""Options that are commands, as people are used to write them."""


def _load(arguments: list[str]) -> typer.Typer:
    if arguments and arguments[0] in _ALIASES:
        arguments[0] = _ALIASES[arguments[0]]
    command = command_of(arguments)
    if command == DEFAULT and arguments[0] != DEFAULT:
        require_recipe(arguments[0])
        arguments.insert(0, DEFAULT)
    if not command:
        return list_app()
    import_commands(command)
    return app
