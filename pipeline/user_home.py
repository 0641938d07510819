"""The home directory of the user that runs this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import EnvironmentLacking

HOME = "HOME"
"""The environment variable that has it."""


def home_folder(environment: Mapping[str, str]) -> Path | None:
    """Return `$HOME`, else the home directory of the user's account; None without account.

    Services, containers and `sudo` rules may start a program without HOME. The account is that of the effective user
    ID: before that changes, `keep_home` puts the answer into HOME.
    """
    if given := environment.get(HOME):
        return Path(given)
    import pwd  # Here and not above: almost every process has HOME.

    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir or "/")
    except KeyError:
        return None


def require_home(environment: Mapping[str, str]) -> Path:
    """Return the user's home directory. Raises EnvironmentLacking `home-unknown`."""
    home = home_folder(environment)
    if home is None:
        raise EnvironmentLacking(
            "home-unknown",
            f"HOME is not set, and the user with the number {os.geteuid()} has no account with a home directory",
            hint="set HOME to a folder that this user may write to; RELBUILD_STORE alone moves the store",
        )
    return home


def with_home(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the variables, with HOME added where it is missing and known."""
    filled = dict(environment)
    if not filled.get(HOME) and (home := home_folder(filled)) is not None:
        filled[HOME] = str(home)
    return filled


def keep_home() -> None:
    """Set HOME for this process where it is not set: before its user ID becomes another."""
    os.environ.update(with_home(os.environ))
