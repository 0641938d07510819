"""Where the command line begins. Importing the other files of this room puts their commands into the app."""

from __future__ import annotations

import contextlib
import os
import sys

from pipeline.cli import building, launching, mirroring, publishing, upkeep
from pipeline.cli.command import app
from pipeline.errors import EnvironmentLacking
from pipeline.sandbox import rootless

COMMANDS = (building, launching, publishing, mirroring, upkeep)
"""Imported for the commands that they put into the app, in the order that `--help` shows."""

IN_A_NAMESPACE = ("build", "smoke", "run", "doctor", "store")
"""Commands that an ordinary user runs as root of its own user namespace: they make containers, or remove what is
owned by subordinate ids."""


def main() -> None:
    """Run the command line. `relbuild RECIPE` is `relbuild build RECIPE`."""
    arguments = sys.argv[1:]
    commands = {command.name for command in app.registered_commands} | {"store"}
    if arguments and arguments[0] not in commands and arguments[0] != "--help":
        arguments = ["build", *arguments]
    if os.geteuid() != 0 and arguments and arguments[0] in IN_A_NAMESPACE and "--help" not in arguments:
        # What needs root says so itself, and what does not goes on.
        with contextlib.suppress(EnvironmentLacking):
            rootless.enter()
    app(arguments)
