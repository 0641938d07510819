"""A program that exhausts CPU, memory, processes or network within an instance's limits.

Run by `neighbours` as a program of its own, `python -I stress.py KIND UID GID GROUPS TARGETS`, in the network
namespace of the instance, until it is killed; it needs nothing of the image. It enters the instance's control groups
(`GROUPS`: cgroup.procs files, with `:` between), becomes the instance's user, prints `begun`, and begins. `TARGETS` are
addresses to flood, with `,` between. Imports nothing of relbuild.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from pathlib import Path

_PIECE = 1 << 20
_DATAGRAM = b"x" * 1400
_PORT = 9


def _spin(targets: list[str]) -> None:
    for _ in range(os.cpu_count() or 1):
        if os.fork() == 0:
            while True:
                pass
    while True:
        time.sleep(1)


def _allocate(targets: list[str]) -> None:
    """Allocate in a child until the kernel kills it, which has most memory; then in another."""
    while True:
        child = os.fork()
        if child == 0:
            kept = []
            while True:
                kept.append(b"x" * _PIECE)
        os.waitpid(child, 0)


def _fork(targets: list[str]) -> None:
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def _flood(targets: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            for target in targets:
                with contextlib.suppress(OSError):
                    sender.sendto(_DATAGRAM, (target, _PORT))


_KINDS = {"spin": _spin, "allocate": _allocate, "fork": _fork, "flood": _flood}


def main(kind: str, uid: str, gid: str, groups: str, targets: str) -> None:
    """Enter control groups, drop to the user, print `begun`, and run the kind for ever."""
    for group in groups.split(":"):
        Path(group).write_text("0")
    os.setgroups([])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.chdir("/")
    sys.stdout.buffer.write(b"begun\n")
    sys.stdout.flush()
    _KINDS[kind]([target for target in targets.split(",") if target])


if __name__ == "__main__":
    main(*sys.argv[1:])
