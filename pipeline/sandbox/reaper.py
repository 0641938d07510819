"""The reaper program: waits for relbuild's end, then clears the sandboxes that it left.

`supervision` runs it as a program, by its path and without `site`, so that it is small and starts at once: while it
waits it has imported no module of relbuild. It is in a session of its own, so that neither a terminal's signals nor
killing relbuild's process group reach it. It waits for relbuild's end by a pidfd (pidfd_open(2)), which is not confused
by a PID that is used again. Only if a sandbox without an owner is left then, it executes Python with relbuild's modules
to clear it.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time

SETTLE_TIMEOUT = 10.0
"""Seconds in which a lock may still be held by a process that relbuild had forked and that has not executed its program
yet: it holds what relbuild held."""
_PAUSE = 0.05

_CLEAR = (
    "import json, pathlib, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from pipeline.sandbox.sandbox_registry import clear_orphans; clear_orphans(pathlib.Path(sys.argv[1]))"
)


def main(owner: int, state: str, path: str) -> None:
    """Wait for the end of the process of the pidfd `owner`, then clear its sandboxes.

    `state` is their state folder, `path` relbuild's `sys.path` as JSON.
    """
    waiting = select.poll()
    waiting.register(owner, select.POLLIN)
    while not waiting.poll():
        pass
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while locks := _locks(f"{state}/live"):
        if _left(locks):
            os.execv(sys.executable, [sys.executable, "-I", "-c", _CLEAR, state, path])  # noqa: S606 - itself
        if time.monotonic() > deadline:
            return
        time.sleep(_PAUSE)


def _locks(live: str) -> list[str]:
    """Return the lock files of all sandboxes."""
    try:
        with os.scandir(live) as entries:
            return [entry.path for entry in entries if entry.name.endswith(".lock")]
    except FileNotFoundError:
        return []


def _left(locks: list[str]) -> bool:
    """Return whether a sandbox is left whose lock no process holds."""
    return any(map(_free, locks))


def _free(lock: str) -> bool:
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
