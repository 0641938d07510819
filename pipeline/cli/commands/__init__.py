"""Commands, one module each, found by themselves.

Whoever adds a module adds a command (`pipeline.cli.app.command` says what it declares). It is called as the module is;
`store_gc` is `gc` in the group of the module `store`. A command imports its own module alone: a build has no need of
what speaks to mirrors, and starts a tenth of a second sooner without.
"""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path

DEFAULT = "build"
"""The command that is meant where none is named: `relbuild RECIPE` is `relbuild build RECIPE`."""


@functools.cache
def modules() -> tuple[str, ...]:
    """The names of all modules of commands and groups."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def words_of(module: str) -> tuple[str, ...]:
    """The words that mean a module: the command's name, before it that of its group."""
    group, _, rest = module.partition("_")
    return (group, rest.replace("_", "-")) if rest and group in modules() else (module.replace("_", "-"),)


def command_of(arguments: Sequence[str]) -> str:
    """The module that arguments name; "" if none. `relbuild RECIPE` is `relbuild build RECIPE`."""
    if not arguments or arguments[0] == "--help":
        return ""
    known = {words_of(module): module for module in modules()}
    return known.get(tuple(arguments[:2])) or known.get(tuple(arguments[:1])) or DEFAULT


def import_commands(command: str = "") -> None:
    """Import a command into the app, or all commands of a group; "": all that there are."""
    for module in modules():
        if not command or command in (module, words_of(module)[0]):
            importlib.import_module(f"{__name__}.{module}")


def reads_repositories(arguments: Sequence[str]) -> bool:
    """Return whether `relbuild` with these arguments reads the repositories of a platform.

    It is read from the command's source: to import it takes longer than much of what asks.
    """
    command = command_of(arguments)
    if not command or "--help" in arguments:
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
