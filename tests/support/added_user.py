"""An ordinary user with subordinate ids that a run of tests adds to the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PREFIX = "relbuild-rootless-"
NAME = f"{PREFIX}{os.getpid()}"
"""Each process that runs tests has a user of its own: other runs may go on beside it, and one that was killed has left
its user."""
LOCKS = Path("/run/lock")
PLACE = Path("/var/tmp")
"""Not pytest's folder: another user has to be able to walk here."""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """While the block lasts, no other test changes the machine's users."""
    with (LOCKS / "relbuild-tests-users").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def added_user() -> Iterator[int]:
    """While the block lasts, there is the user NAME; its first subordinate id.

    The users of runs that were killed are removed first.
    """
    with one_at_a_time():
        remove_leftovers()
        alive = (LOCKS / NAME).open("w")
        fcntl.flock(alive, fcntl.LOCK_EX)  # The kernel gives it back, whatever ends this process.
    try:
        with one_at_a_time():
            first = add_user()
        yield first
    finally:
        with alive, one_at_a_time():
            remove_user(NAME)


def remove_leftovers() -> None:
    """Remove the users whose process is gone. One that has processes stays: it is in nobody's way."""
    for name in (entry.pw_name for entry in pwd.getpwall()):
        if re.fullmatch(f"{PREFIX}[0-9]+", name):
            with (LOCKS / name).open("w") as alive, contextlib.suppress(BlockingIOError):
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(subprocess.CalledProcessError):
                    remove_user(name)


def remove_user(name: str) -> None:
    subprocess.run(["userdel", name], check=True)
    shutil.rmtree(PLACE / name, ignore_errors=True)
    (LOCKS / name).unlink()


def add_user() -> int:
    """Add the user NAME with 65536 subordinate ids, and return the first of these."""
    taken = [line.split(":") for line in Path("/etc/subuid").read_text().splitlines()]
    first = max([100000, *(int(begin) + int(count) for _, begin, count in taken)])
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", NAME], check=True)
    subprocess.run(["sed", "-i", f"/^{NAME}:/d", "/etc/subuid", "/etc/subgid"], check=True)
    span = f"{first}-{first + 65535}"
    subprocess.run(["usermod", "--add-subuids", span, "--add-subgids", span, NAME], check=True)
    return first


def subordinate() -> tuple[int, int]:
    for line in Path("/etc/subuid").read_text().splitlines():
        name, first, count = line.split(":")
        if name == NAME:
            return int(first), int(first) + int(count)
    return 0, 0
