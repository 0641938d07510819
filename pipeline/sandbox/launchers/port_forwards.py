"""Ports of a pod, forwarded to this machine's loopback, each by one `kubectl port-forward`."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import field
from pathlib import Path

from pipeline import process
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.kubectl import Kubectl
from pipeline.sandbox.output import wait_for_exit

_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) -> ")
_PAUSE = 0.05
_SAID_SHOWN = 500


@dataclass(slots=True)
class PortForwards:
    """The forwarded ports of a pod.

    `folder` has what the processes print: a line for each connection.
    """

    kubectl: Kubectl
    pod: str
    folder: Path
    _running: dict[int, tuple[process.Process, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def local_port(self, port: int, timeout: float) -> int:
        """Return the port of the loopback that is forwarded to a pod's port.

        It is forwarded by the first call, and again when its process has ended, as it may after a refused connection.
        Raises ConnectionRefusedError, TimeoutError.
        """
        with self._lock:
            known = self._running.get(port)
            if known is not None and known[0].poll() is None:
                return known[1]
            self._running.pop(port, None)
            path = self.folder / f"forward-{port}"
            with path.open("wb") as said:
                running = process.start(self.kubectl.forward(self.pod, port), stdout=said, stderr=said)
            try:
                local = _told(running, path, time.monotonic() + timeout)
            except OSError:
                process.kill_group(running)
                running.wait()
                raise
            self._running[port] = (running, local)
            return local

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            for running, _ in self._running.values():
                process.kill_group(running)
                running.wait()
            self._running.clear()


def _told(running: process.Process, path: Path, deadline: float) -> int:
    """Wait until a process has printed its port, and return it."""
    while True:
        ended = wait_for_exit(running, _PAUSE)
        said = path.read_bytes()
        found = _FORWARDING.search(said)
        if ended:
            reason = said.decode(errors="replace").strip()[-_SAID_SHOWN:]
            raise ConnectionRefusedError(f"the port was not forwarded: {reason or 'no reason given'}")
        if found is not None:
            return int(found[1])
        if time.monotonic() >= deadline:
            raise TimeoutError("the port was not forwarded in time")
