"""Machines for a cluster: each a network of its own that is joined to the others by a link, and real processes in it.
They share this machine's files but for one folder, and every worker has its own store."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.added_user import LOCKS
from tests.support.patience import HUNG

ROOT = Path(__file__).parents[2]
_ENDING = 30
"""Seconds that a command gets to end when it is asked to."""


@dataclass(slots=True)
class Command:
    """A command on a machine. With `again`, it is started again whenever it ends, as systemd or Kubernetes would."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    again: bool
    process: subprocess.Popen[bytes] = field(init=False)
    _closed: threading.Event = field(default_factory=threading.Event)
    _supervisor: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._start()
        self._supervisor = threading.Thread(target=self._keep_running)
        self._supervisor.start()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                env={**os.environ, **self.environment},
                cwd=self.log.parent,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep_running(self) -> None:
        while self.process.wait() is not None and self.again and not self._closed.wait(0.2):
            self._start()

    def kill(self) -> None:
        """SIGKILL to this process alone, as the kernel does when memory is short."""
        self.process.kill()

    def close(self) -> None:
        """End it as a supervisor does, and wait until it has."""
        self._closed.set()
        deadline = time.monotonic() + _ENDING
        while self._supervisor.is_alive():
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            self._supervisor.join(1.0)


@dataclass(slots=True)
class Machine:
    """`address` is its own on the link. Whatever is in the folder `hidden`, it does not see."""

    name: str
    namespace: str
    address: str
    folder: Path
    link: str
    hidden: Path
    commands: list[Command] = field(default_factory=list)

    def run(
        self,
        *argv: str,
        again: bool = False,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> Command:
        """Start a command of this venv's Python. `environment` is added to the test's own; `within` is a command that
        becomes it."""
        hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.hidden)]
        words = ["nsenter", f"--net=/run/netns/{self.namespace}", *hide, *within, sys.executable, *argv]
        added = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache"), **(environment or {})}
        command = Command(words, added, self.folder / "log", again)
        self.commands.append(command)
        return command

    @property
    def said(self) -> str:
        """What its commands have written."""
        return (self.folder / "log").read_text(errors="replace")

    def carried(self) -> int:
        """Bytes that went over its link, both ways."""
        counts = Path("/sys/class/net", self.link, "statistics")
        return sum(int((counts / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


@dataclass(slots=True)
class Machines:
    """A network `net`.0/24 with this machine at .1. What is in the folder `own` only this machine sees."""

    folder: Path
    bridge: str
    net: str
    made: dict[str, Machine] = field(default_factory=dict)

    @property
    def own(self) -> Path:
        """This machine's own folder."""
        return self.folder / "own"

    def machine(self, name: str) -> Machine:
        """A new machine, or the one of that name."""
        if name in self.made:
            return self.made[name]
        number = len(self.made) + 2
        namespace, link = f"{self.bridge}-{name}", f"{self.bridge}{number}"
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        machine = self.made[name] = Machine(name, namespace, f"{self.net}.{number}", folder, link, self.own)
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self.bridge, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return machine

    def scheduler(self, *words: str, environment: Mapping[str, str] | None = None, name: str = "hub") -> Command:
        """Start `dask scheduler`, and wait until it listens."""
        machine = self.machine(name)
        argv = ("-m", "dask", "scheduler", "--host", machine.address, "--port", "8786", "--no-dashboard", *words)
        command = machine.run(*argv, environment=environment)
        deadline = time.monotonic() + HUNG
        while True:
            with suppress(OSError), socket.create_connection((machine.address, 8786), timeout=1):
                return command
            assert time.monotonic() < deadline and command.process.poll() is None, machine.said
            time.sleep(0.05)

    @property
    def address(self) -> str:
        """Where the scheduler is, if it speaks plainly."""
        return f"tcp://{self.made['hub'].address}:8786"

    def worker(
        self,
        name: str,
        *words: str,
        to: str = "",
        again: bool = False,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> Command:
        """Start `relbuild worker`, one task at a time, on a machine of its own."""
        machine = self.machine(name)
        store = machine.folder / "store"
        store.mkdir(mode=0o700, exist_ok=True)
        argv = ("-m", "pipeline", "worker", to or self.address, "--store", str(store), "--name", name, "--jobs", "1")
        return machine.run(*argv, *words, again=again, environment=environment, within=within)

    def close(self) -> None:
        """End all commands, and take the machines away."""
        for machine in self.made.values():
            for command in machine.commands:
                command.close()
        for machine in self.made.values():
            _ip("netns", "delete", machine.namespace)
        _ip("link", "delete", self.bridge)


def is_of_machines(namespace: str) -> bool:
    """Whether a network namespace is a machine's, of any test that runs at the same time."""
    return re.match(r"rb[0-9a-f]{6}-", namespace) is not None


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """A network without machines; what is made in it goes at the end."""
    bridge = f"rb{secrets.token_hex(3)}"
    with (LOCKS / "relbuild-tests-networks").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        net = _unused_network()
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{net}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    made = Machines(folder, bridge, net)
    made.own.mkdir()
    try:
        yield made
    finally:
        made.close()


def _unused_network() -> str:
    """The first numbers of a network that this machine has no address of: other tests have theirs at the same time."""
    taken = _ip("-4", "-oneline", "address", "show")
    return next(net for third in range(1, 255) if f" {(net := f'198.18.{third}')}." not in taken)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=HUNG, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
