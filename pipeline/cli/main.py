"""The entry point of the command line.

Importing a file of this room puts its commands into the app.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys

from pipeline.cli.command import app
from pipeline.cli.commands import COMMANDS, IN_A_NAMESPACE, command_of
from pipeline.cli.outcome import report
from pipeline.errors import EnvironmentLacking


def run() -> None:
    """Run the command line. `relbuild RECIPE` is `relbuild build RECIPE`."""
    arguments = sys.argv[1:]
    try:
        _import_commands(arguments)
        gc.freeze()
        gc.enable()
        app(arguments)
    except Exception as error:  # Outside of a command's body: while it was loaded or its options were read.
        sys.exit(report(error, as_json=False))


def _import_commands(arguments: list[str]) -> None:
    command = command_of(arguments)
    if command and arguments[0] != command:
        arguments.insert(0, command)
    for name, commands in COMMANDS.items():
        if not command or command in commands:
            importlib.import_module(f"pipeline.cli.{name}")
    if os.geteuid() != 0 and command in IN_A_NAMESPACE and "--help" not in arguments:
        # Here and not above: root needs none of it. What needs root says so itself, and what does not goes on.
        from pipeline.sandbox import rootless

        with contextlib.suppress(EnvironmentLacking):
            rootless.enter()
