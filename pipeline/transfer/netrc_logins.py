"""Read logins from a netrc file, as curl reads it with `--netrc`.

An entry's login is for its own machine. The `default` entry is passed over: it would go to whatever host the definition
of a repository names.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.beneath import TooLarge, open_file
from pipeline.errors import EnvironmentLacking
from pipeline.transfer.credentials import Credentials
from pipeline.user_home import require_home

NETRC_LIMIT = 1 << 20
"""Bytes of a netrc file: one with some hundred machines has some ten KiB."""

_DEFAULT = "default"


class _FirstEntries(dict[str, "tuple[str, str, str]"]):
    """Entries by machine; the first of two for one machine stays, as with curl."""

    def __setitem__(self, machine: str, entry: tuple[str, str, str]) -> None:
        if not self.get(machine):  # The parser begins an entry with an empty one.
            super().__setitem__(machine, entry)


class _Netrc(netrc.netrc):
    """A netrc file of which the first entry for a machine counts."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, _FirstEntries() if name == "hosts" else value)


def netrc_path(environment: Mapping[str, str]) -> Path:
    """Return `$NETRC`, else `~/.netrc`. Raises EnvironmentLacking `home-unknown`."""
    return Path(environment.get("NETRC") or require_home(environment) / ".netrc")


def read_netrc(path: Path, place: str) -> dict[str, Credentials]:
    """Read the logins of a netrc file by the machine's name, in lower case.

    Of two for a machine the first counts. Raises EnvironmentLacking `secret-unreadable` at `place`.

    No message quotes the file, which has secrets.
    """
    try:
        with open_file(path) as file:
            if os.fstat(file.fileno()).st_size > NETRC_LIMIT:
                raise TooLarge(path, NETRC_LIMIT)
            found = _Netrc(f"/proc/self/fd/{file.fileno()}").hosts
    except netrc.NetrcParseError as error:
        raise netrc_unreadable(path, f"line {error.lineno} is malformed", place) from None
    except UnicodeDecodeError:
        raise netrc_unreadable(path, "it is not text", place) from None
    except (OSError, ValueError) as error:
        raise netrc_unreadable(path, str(error), place) from error
    return {
        machine.lower(): Credentials(login or "", password or "")
        for machine, (login, _, password) in reversed(found.items())
        if machine != _DEFAULT
    }


def netrc_unreadable(path: Path, why: str, place: str) -> EnvironmentLacking:
    """Make the error for a netrc file that has no login to use."""
    return EnvironmentLacking(
        "secret-unreadable",
        f"no login can be taken from '{path}': {why}",
        place=place,
        hint="write `machine HOST login USER password PASSWORD` into ~/.netrc, or set NETRC to another file",
    )
