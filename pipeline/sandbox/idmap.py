"""Which ids containers get on the machine, and user namespaces to map file systems through.

An image's ids 0…65535 become `base`…`base`+65535 on the machine, a range that nothing else uses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking

IDS = 65536
"""Ids in one container: all that a tar header of an ordinary image holds."""

FIRST_BASE = 0x7000_0000
"""The first container's ids begin here. Above what systemd-nspawn (0x80000 to 0x6FFFFFFF) and `useradd` with
its subordinate ids (from 100000) hand out, below what does not fit a signed integer
(systemd, docs/UIDS-GIDS.md)."""

SLOTS = 4000
"""Ranges that there are: up to 0x7FA00000, below systemd's range for foreign images at 0x7FFE0000."""


def base_of(slot: int) -> int:
    """The first id of range number `slot`."""
    if not 0 <= slot < SLOTS:
        raise ValueError(f"there is no id range {slot}")
    return FIRST_BASE + slot * IDS


@contextlib.contextmanager
def user_namespace(base: int) -> Iterator[int]:
    """A descriptor of a user namespace that maps 0…65535 to `base`…; for idmapped mounts, not to live in.

    Raises EnvironmentLacking `no-user-namespace`.
    """
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with contextlib.ExitStack() as after, contextlib.ExitStack() as speaking:
        after.callback(os.close, ours_in)
        speaking.callback(os.close, ours_out)
        try:
            # `read` keeps the process, and with it the namespace, until our end of the pipe is closed.
            child = process.start(
                ["unshare", "--user", "sh", "-c", "echo in; read -r end"], stdin=theirs_in, stdout=theirs_out
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        after.callback(child.wait)
        if os.read(ours_in, 3) != b"in\n":
            raise EnvironmentLacking(
                "no-user-namespace",
                "a user namespace cannot be made",
                hint="see kernel.unprivileged_userns_clone and user.max_user_namespaces",
            )
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{child.pid}/{kind}").write_text(f"0 {base} {IDS}\n")
        namespace = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield namespace
    finally:
        os.close(namespace)
