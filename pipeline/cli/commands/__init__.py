"""Command modules, one per command: their names, import, and use of repositories.

To add a command, add a module; `pipeline.cli.app.command` tells what it declares. It is named after the module;
`store_gc` is `gc` in the group of the module `store`. Only the module of the command that runs is imported: a build
does not need the code for mirrors, and starts a tenth of a second sooner without it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass

DEFAULT = "build"
"""The command that is meant where none is named: `relbuild RECIPE` is `relbuild build RECIPE`."""

HELP = frozenset({"-h", "--help"})
"""The options that ask for help."""


@functools.cache
def modules() -> tuple[str, ...]:
    """Return the names of all modules of commands and groups."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def words_of(module: str) -> tuple[str, ...]:
    """Return the words of a module's command on the command line: its group, if any, and name."""
    group, _, rest = module.partition("_")
    return (group, rest.replace("_", "-")) if rest and group in modules() else (module.replace("_", "-"),)


def command_of(arguments: Sequence[str]) -> str:
    """Return the module of the command that arguments name (default: `build`); "" if none."""
    if not arguments or arguments[0] in HELP:
        return ""
    known = {words_of(module): module for module in modules()}
    return known.get(tuple(arguments[:2])) or known.get(tuple(arguments[:1])) or DEFAULT


def import_commands(command: str = "") -> None:
    """Import a command into the app, or all commands of a group; "": all commands."""
    for module in modules():
        if not command or command in (module, words_of(module)[0]):
            importlib.import_module(f"{__name__}.{module}")


@dataclass(frozen=True, slots=True)
class CommandSummary:
    """A command or a group in the list of all; groups come last."""

    name: str
    rank: int
    help: str
    is_group: bool = False


def command_summaries() -> tuple[CommandSummary, ...]:
    """Return the list of all commands and groups, in its order.

    It is read from their sources' text, because importing all of them takes twenty times as long.
    """
    found = []
    for module in modules():
        text = (Path(__file__).parent / f"{module}.py").read_text()
        if len(words_of(module)) == 1 and (declared := _DECLARED.search(text)):
            found.append(CommandSummary(words_of(module)[0], int(declared["rank"]), cleandoc(declared["help"])))
        elif group := _GROUP.search(text):
            found.append(CommandSummary(group["name"], sys.maxsize, group["help"], is_group=True))
    return tuple(sorted(found, key=lambda one: one.rank))


_DECLARED = re.compile(r'^@command\(\s*rank=(?P<rank>\d+).*?^    """(?P<help>.*?)"""$', re.MULTILINE | re.DOTALL)
_GROUP = re.compile(r'^command_group\("(?P<name>\w+)", help="(?P<help>.*)"\)$', re.MULTILINE)


def reads_repositories(arguments: Sequence[str]) -> bool:
    """Return whether `relbuild` with these arguments reads the repositories of a platform.

    It is read from the command's source, because importing it takes longer.
    """
    command = command_of(arguments)
    if not command or not HELP.isdisjoint(arguments):
        return False
    tree = ast.parse((Path(__file__).parent / f"{command}.py").read_text())
    declared = [
        call for function in tree.body if isinstance(function, ast.FunctionDef) for call in function.decorator_list
    ]
    return any(
        word.arg == "reads_repositories" and ast.literal_eval(word.value)
        for call in declared
        if isinstance(call, ast.Call)
        for word in call.keywords
    )
