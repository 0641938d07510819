"""Where the command line begins. Importing a file of this room puts its commands into the app."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from types import MappingProxyType

from pipeline.cli.command import app
from pipeline.cli.outcome import report
from pipeline.errors import EnvironmentLacking

COMMANDS = MappingProxyType(
    {
        "building": ("build", "lock", "explain"),
        "looking": ("inspect", "validate", "sbom"),
        "comparing": ("diff",),
        "launching": ("smoke", "run"),
        "publishing": ("publish", "promote", "rollback", "copy", "keygen"),
        "auditing": ("audit",),
        "mirroring": ("verify", "history", "prune", "serve"),
        "scrubbing": ("scrub",),
        "cataloguing": ("nightly",),
        "starting": ("new",),
        "working": ("worker",),
        "upkeep": ("doctor", "schema", "version", "store"),
    }
)
"""Which file has which commands, in the order that `--help` shows. A command imports its own file alone: a build has no
need of what speaks to mirrors, and starts a tenth of a second sooner without."""

IN_A_NAMESPACE = ("build", "smoke", "run", "nightly", "worker", "doctor", "store")
"""Commands that an ordinary user runs as root of its own user namespace: they make containers, or remove what is
owned by subordinate ids."""


def run() -> None:
    """Run the command line. `relbuild RECIPE` is `relbuild build RECIPE`."""
    arguments = sys.argv[1:]
    try:
        _import_commands(arguments)
        app(arguments)
    except Exception as error:  # Outside of a command's body: while it was loaded or its options were read.
        sys.exit(report(error, as_json=False))


def _import_commands(arguments: list[str]) -> None:
    known = {command for commands in COMMANDS.values() for command in commands}
    if arguments and arguments[0] not in known and arguments[0] != "--help":
        arguments.insert(0, "build")
    for name, commands in COMMANDS.items():
        if not arguments or arguments[0] == "--help" or arguments[0] in commands:
            importlib.import_module(f"pipeline.cli.{name}")
    if os.geteuid() != 0 and arguments and arguments[0] in IN_A_NAMESPACE and "--help" not in arguments:
        # Here and not above: root needs none of it. What needs root says so itself, and what does not goes on.
        from pipeline.sandbox import rootless

        with contextlib.suppress(EnvironmentLacking):
            rootless.enter()
