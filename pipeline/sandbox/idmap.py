"""ID ranges of containers on the host, and user namespaces with them for idmapped mounts.

An image's ids 0…65535 become `base`…`base`+65535 on the host, a range that nothing else uses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking

IDS = 65536
"""IDs in one container: all that a tar header of an ordinary image holds."""

FIRST_BASE = 0x7000_0000
"""The first container's IDs begin here: above those that systemd-nspawn (0x80000 to 0x6FFFFFFF) and `useradd`'s
subordinate IDs (from 100000) use, and below those that do not fit a signed integer
(systemd, docs/UIDS-GIDS.md)."""

ID_RANGES = 4000
"""Number of ranges: up to 0x7FA00000, below systemd's range for foreign images at 0x7FFE0000."""


def first_id_of(slot: int) -> int:
    """Return the first id of range number `slot`."""
    if not 0 <= slot < ID_RANGES:
        raise ValueError(f"no ID range {slot}")
    return FIRST_BASE + slot * IDS


def id_map(base: int, ours: str | None = None) -> tuple[tuple[int, int, int], ...]:
    """Return a container's ID map as triples: ID inside, ID on the host, count.

    A user namespace in another must be mapped by ranges that lie within single ranges of that one (user_namespaces(7)).
    `ours`: this process's own map.
    """
    pieces = []
    for line in (ours or Path("/proc/self/uid_map").read_text()).splitlines():
        first, _, count = (int(word) for word in line.split())
        begin, end = max(first, base), min(first + count, base + IDS)
        if begin < end:
            pieces.append((begin - base, begin, end - begin))
    return tuple(pieces)


@contextlib.contextmanager
def user_namespace(base: int) -> Iterator[int]:
    """Yield a descriptor of a user namespace that maps 0…65535 to `base`…; for idmapped mounts.

    Raises EnvironmentLacking `no-user-namespace`.
    """
    with _namespaces(base, "user") as (user,):
        yield user


@contextlib.contextmanager
def user_and_network_namespace(base: int) -> Iterator[tuple[int, int]]:
    """Yield descriptors of a user namespace and of an empty network namespace that it owns.

    They are for a container. The runtime joins a container's namespaces in the order user, network: it could not join
    a network namespace that the host's user namespace owns (runc exec).

    Raises EnvironmentLacking `no-user-namespace`.
    """
    with _namespaces(base, "user", "net") as (user, network):
        yield user, network


@contextlib.contextmanager
def _namespaces(base: int, *kinds: str) -> Iterator[tuple[int, ...]]:
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with contextlib.ExitStack() as after, contextlib.ExitStack() as speaking:
        after.callback(os.close, ours_in)
        speaking.callback(os.close, ours_out)
        try:
            # `read` keeps the process, and so the namespaces, until this end of the pipe is closed.
            child = process.start(
                ["unshare", *(f"--{kind}" for kind in kinds), "sh", "-c", "echo in; read -r end"],
                stdin=theirs_in,
                stdout=theirs_out,
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        after.callback(child.wait)
        if os.read(ours_in, 3) != b"in\n":
            raise EnvironmentLacking(
                "no-user-namespace",
                "cannot create a user namespace",
                hint="check the sysctls kernel.unprivileged_userns_clone and user.max_user_namespaces; in a chroot, "
                "the kernel allows none (user_namespaces(7)): use a container or a root of its own (pivot_root)",
            )
        for kind in ("uid_map", "gid_map"):
            lines = [f"{inside} {outside} {count}\n" for inside, outside, count in id_map(base)]
            Path(f"/proc/{child.pid}/{kind}").write_text("".join(lines))
        handles = [os.open(f"/proc/{child.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    try:
        yield tuple(handles)
    finally:
        for handle in handles:
            os.close(handle)
