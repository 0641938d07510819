"""Start and restart of the reaper, which removes this process's sandboxes once it has ended.

The reaper is started with the first sandbox, and started again if it is killed.

When relbuild is killed, the kernel does not end its containers: a container's first process is the runtime's child, and
the runtime is in a session of its own. So one small process for each process of relbuild (`reaper`) outlives it until
the sandboxes are removed. It clears sandboxes whose lock no process holds; the lock of one that shall outlive relbuild
is held by another process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import field
from pathlib import Path

from pipeline import process
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import reaper

_RESTARTS = 5
"""Times that a reaper that was killed is started again at once.
After that it is not restarted until the next sandbox starts."""


@dataclass(slots=True)
class _Supervised:
    """This process's reaper for one state folder."""

    state: Path
    running: process.Process | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ensure(self) -> None:
        with self.lock:
            if self.running is not None and self.running.poll() is None:
                return
            self.running = _start(self.state)
            threading.Thread(target=self._watch, args=(self.running,), name="supervision", daemon=True).start()

    def _watch(self, running: process.Process) -> None:
        """Replace a reaper that ends while this process lives."""
        for _ in range(_RESTARTS):
            running.wait()
            with self.lock:
                if self.running is not running:
                    return
                try:
                    self.running = running = _start(self.state)
                except EnvironmentLacking:
                    return


_supervised: dict[tuple[int, Path], _Supervised] = {}
"""Reapers by process and state folder: a forked process has none yet."""

_lock = threading.Lock()


def supervise(state: Path) -> None:
    """Have the sandboxes of this process in `state` cleared when it ends.

    Raises EnvironmentLacking `no-reaper`.
    """
    with _lock:
        mine = _supervised.setdefault((os.getpid(), state), _Supervised(state))
    mine.ensure()


def _start(state: Path) -> process.Process:
    owner = os.pidfd_open(os.getpid())
    try:
        return process.start(
            [sys.executable, "-I", "-S", reaper.__file__, str(owner), state, json.dumps(_path())],
            cwd=Path("/"),
            pass_fds=(owner,),
        )
    except OSError as error:
        raise EnvironmentLacking(
            "no-reaper",
            f"cannot start the reaper, which ends containers if relbuild is killed: {error}",
            hint="check `ulimit -u` and the free memory",
        ) from error
    finally:
        os.close(owner)


def _path() -> list[str]:
    """Return `sys.path` with absolute entries, because the reaper has another working directory."""
    return [str(Path(entry).absolute()) for entry in sys.path]
