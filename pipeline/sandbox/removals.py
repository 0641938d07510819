"""Commands that remove what a foreign runtime made, kept in the sandbox's folder.

They are executed when the sandbox is cleared: by who made it, or by the reaper if that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.store.durable_files import write_durably

_FILE = "removals.json"

REMOVAL_ERRORS = ("removal-failed", "removals-damaged")
"""Codes of errors that leave something of a foreign runtime behind."""

_LIMIT = 4 << 20
"""Bytes of the file: commands of a thousand volumes have one."""

_TIMEOUT = 60.0
"""Seconds for each command: an engine stops a container in less than one."""


@dataclass(frozen=True, slots=True)
class RemovalCommand:
    """A command that removes something, and one that succeeds while it is still there."""

    remove: Sequence[str]
    exists: Sequence[str]


def write_removals(folder: Path, *removals: RemovalCommand) -> None:
    """Write the commands that remove what will be made, before it is made."""
    data = [[list(one.remove), list(one.exists)] for one in removals]
    # They tell of an operator's engines and clusters, which other users need not know; secrets are refused before.
    write_durably(folder / _FILE, json.dumps(data).encode(), mode=0o600)


def run_removals(folder: Path) -> None:
    """Execute the commands of a sandbox's folder, if there are any.

    An engine's client that still starts or loads something is killed first: it has a file of the folder on its command
    line. That a command fails is no error: what it removes may not have been made yet. Raises EnvironmentLacking
    `removal-failed` if it is still there, such as an image of which another container is not removed yet, or if the
    commands are another user's, `removals-damaged` if the file cannot be read.
    """
    try:
        commands = _read(folder / _FILE)
    except FileNotFoundError:
        return
    _end_clients(folder)
    for remove, exists in commands:
        removed = process.run(remove, timeout=_TIMEOUT, check=False)
        if removed.status and process.run(exists, timeout=_TIMEOUT, check=False).status == 0:
            raise EnvironmentLacking(
                "removal-failed",
                f"`{_shown(remove)}` failed: {removed.stderr.decode(errors='replace').strip()}",
                place=str(folder),
                hint=f"it is tried again with relbuild's next sandbox; or execute it by hand: {_FILE} there has it",
            )


def _read(path: Path) -> list[tuple[list[str], list[str]]]:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            # Whoever may write to a store could otherwise have root execute what they like.
            raise EnvironmentLacking(
                "removal-failed",
                "these commands are another user's",
                place=str(path),
                hint="look at the file, and remove it",
            )
        try:
            commands = [(_words(remove), _words(exists)) for remove, exists in json.loads(file.read(_LIMIT))]
        except (ValueError, TypeError, RecursionError):
            raise EnvironmentLacking(
                "removals-damaged",
                "the record of what a launcher made for this sandbox is damaged, so that it cannot be removed",
                place=str(path),
                hint="remove by hand what the launcher has left (`podman ps --all`, `docker ps --all`, `kubectl get "
                "pods -l app.kubernetes.io/managed-by=relbuild`; names begin as this folder's), then this file",
            ) from None
    return commands


def _words(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise TypeError("a command is a list of words")
    return value


def _shown(command: Sequence[str]) -> str:
    """Return a command's program and last word, which names what it removes.

    Between them may be a secret: earlier versions recorded such options. Before kubectl stand `env` and variables.
    """
    program = next((word for word in command if word != "env" and "=" not in word), command[0])
    return program if program is command[-1] else f"{program} … {command[-1]}"


def _end_clients(folder: Path) -> None:
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with contextlib.suppress(OSError):
                if _is_client(path, folder):
                    os.kill(int(path.name), signal.SIGKILL)


def _is_client(process_folder: Path, folder: Path) -> bool:
    """Return whether a process has a file of the folder on its command line.

    One that loads has it relative to its working directory, and called as the folder is.
    """
    line = (process_folder / "cmdline").read_bytes()
    if os.fsencode(f"{folder}/") in line:
        return True
    relative = (folder / folder.name).exists() and os.fsencode(folder.name) in line.split(b"\0")
    return relative and (process_folder / "cwd").readlink() == folder
