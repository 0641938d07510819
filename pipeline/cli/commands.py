"""The list of all commands, known before any of them is imported.

In which file each is, and what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

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

FROM_REPOSITORIES = ("build", "lock", "explain", "audit", "nightly", "worker")
"""Commands that read the repositories of a platform. All others work without any."""


def command_of(arguments: Sequence[str]) -> str:
    """The command that arguments name; "" if none. `relbuild RECIPE` is `relbuild build RECIPE`."""
    if not arguments or arguments[0] == "--help":
        return ""
    known = {command for commands in COMMANDS.values() for command in commands}
    return arguments[0] if arguments[0] in known else "build"


def reads_repositories(arguments: Sequence[str]) -> bool:
    """Return whether `relbuild` with these arguments reads the repositories of a platform."""
    return "--help" not in arguments and command_of(arguments) in FROM_REPOSITORIES
