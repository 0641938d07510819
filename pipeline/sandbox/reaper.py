"""The reaper: waits for relbuild's end, then ends and removes the sandboxes that it left.

It is run as a program, by its path and without `site`, so that it is small and there at once (`supervision` starts
it): while it waits it has no module of relbuild's. It is in a session of its own, so that neither a terminal's signals
nor the killing of relbuild's whole process group reach it. It is told of relbuild's end by a descriptor of the process
(pidfd_open(2)), which nothing can hold back and no number that is used again can deceive. Only if a sandbox without an
owner is there then, it becomes a program that can remove it.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys

_CLEAR = (
    "import json, pathlib, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from pipeline.sandbox.sandbox_registry import clear_orphans; clear_orphans(pathlib.Path(sys.argv[1]))"
)


def main(owner: int, state: str, path: str) -> None:
    """Wait for the end of the process behind the pidfd `owner`, then clear `state`.

    `path` is relbuild's `sys.path` as JSON.
    """
    waiting = select.poll()
    waiting.register(owner, select.POLLIN)
    while not waiting.poll():
        pass
    if _left(f"{state}/live"):
        os.execv(sys.executable, [sys.executable, "-I", "-c", _CLEAR, state, path])  # noqa: S606 - itself


def _left(live: str) -> bool:
    """Return whether a sandbox is left whose lock nobody holds."""
    try:
        with os.scandir(live) as entries:
            return any(_free(entry.path) for entry in entries if entry.name.endswith(".lock"))
    except FileNotFoundError:
        return False


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
