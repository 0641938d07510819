"""Tell what a command depends on besides options and files: its process, and the date."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

LIFETIME = 86400.0
"""Seconds for which a build or a publication is remembered. What depends on the date is looked at again once a day: a
key that expires is warned of. So is the last use of what the store holds, which it records to a day too."""

IGNORED_VARIABLES = frozenset(
    {
        *("_", "OLDPWD", "PWD", "SHLVL"),
        *(
            "COLORTERM",
            "COLUMNS",
            "GPG_TTY",
            "LINES",
            "STY",
            "TERM",
            "TERM_SESSION_ID",
            "TMUX",
            "TMUX_PANE",
            "WINDOWID",
        ),
        *("SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "XDG_SESSION_ID"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID"),
    }
)
"""Environment variables that name a terminal, a session, or the working directory, which is compared itself. All others
count, whether anything reads them or not."""

_OWN_STATUS = Path("/proc/self/status")


def process_inputs(seal: Callable[[bytes], str], environment: Mapping[str, str]) -> dict[str, object]:
    """Return what a command depends on besides its options.

    Folder, environment, user, machine, Python. Values of the environment may be secret: their seal stands in it, which
    `seal` makes. Raises OSError.
    """
    variables = {name: value for name, value in environment.items() if name not in IGNORED_VARIABLES}
    system = os.uname()
    own = [
        line for line in _OWN_STATUS.read_text().splitlines() if line.startswith(("Uid:", "Gid:", "Cap", "Seccomp:"))
    ]
    return {
        "folder": os.getcwd(),  # noqa: PTH109  a text, and not resolved
        "environment": seal(json.dumps(sorted(variables.items())).encode()),
        "user": own,
        "machine": [system.sysname, system.release, system.version, system.machine],
        "python": [sys.executable, sys.version, str(sys.flags), *sys.path],
    }
