"""A publisher in a process of its own, that does one thing after the other as it is told, and that can be killed at any
step of it.

Steps are what changes a mirror. Of a directory, every change of its file system (Python's audit events: a file is
made, renamed, linked, removed, a folder made …); of a registry, every request that is not GET or HEAD, once before it
is sent and once after it was answered; of both, every call of a repository that changes it. In front of the step whose
number it was told, the process kills itself with SIGKILL: nothing is cleaned up, no lock is released but by the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY, find_root
from pipeline.mirror.backends.directory.directory_repository import DirectoryRepository
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.mirror_access import MirrorAccess
from pipeline.model.rules import GateRule, MirrorRules, RetentionRule
from pipeline.oci import SigningKey, load_signing_key
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from pipeline.release import (
    PublishOptions,
    copy,
    promote,
    publish,
    rollback,
)
from pipeline.store import Store
from pipeline.transfer import RegistryClient

ROOT = Path(__file__).parents[2]
RULES = MirrorRules((GateRule(refuse_older=False),))
GRACE = 3
"""Seconds, of which the mirror counts whole ones: a pull that began when a tag still pointed there has two at least."""

PRUNING = MirrorRules(
    retention=(RetentionRule(tags="move.*", keep=60), RetentionRule(tags="*-*", keep=2)), grace=GRACE, quarantine=5
)
CALLS = ("put_blob", "put_manifest", "attach", "put_auxiliary", "point", "remove_tag", "remove_manifest")
_FILES = frozenset({"os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "open"})
_MADE = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True, slots=True)
class Task:
    """What to do. `do`: publish, promote, rollback, copy or prune; `what`: a layout, a reference, or a mirror; `to`: a
    mirror, channel, digest or reference; `tags`: floating tags of a publication. `signer` chooses the key. `kill_at`:
    the step in front of which it is killed (0: none)."""

    do: str
    what: str
    to: str = ""
    tags: tuple[str, ...] = ()
    signer: int = 0
    kill_at: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it. `code`: of the error by which it was refused, with the words; `killed`: it was not to end."""

    killed: bool = False
    code: str = ""
    words: str = ""
    exit_code: int = 0
    seconds: float = 0.0


def signer(number: int) -> SigningKey:
    """A key that is always the same."""
    return load_signing_key(
        ec.derive_private_key(0x7E57 + number, ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def perform(task: Task, build_env: BuildEnvironment) -> None:
    """Do it here. Raises what the pipeline raises."""
    key = signer(task.signer)
    match task.do:
        case "publish":
            order = PublishOptions((Path(task.what),), parse_address(task.to), key, RULES, task.tags or None)
            publish(order, build_env)
        case "promote":
            promote(parse_address(task.what), task.to, key, RULES, build_env)
        case "rollback":
            to = Digest.parse(task.to) if task.to else None
            rollback(parse_address(task.what), to, key, RULES, build_env)
        case "copy":
            copy(parse_address(task.what), parse_address(task.to), key, RULES, build_env)
        case "prune":
            prune(task.what)
        case _:
            raise AssertionError(task)


def prune(mirror: str) -> None:
    """Images that only immutable tags point to go, but for the newest two, GRACE seconds after the last other tag left
    them."""
    with MirrorAccess({}, QUIET, time.time).mirror(parse_address(mirror)) as opened:
        opened.prune(PRUNING, int(time.time()))


class Publisher:
    """The process, from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def begin(self, task: Task) -> None:
        """Have it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        self._process.stdin.flush()

    def end(self) -> Outcome:
        """Wait for it to end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the publisher is gone"
        return Outcome(**json.loads(line))

    def do(self, task: Task) -> Outcome:
        """Both."""
        self.begin(task)
        return self.end()


@contextlib.contextmanager
def publisher(build_env: BuildEnvironment, home: Path) -> Iterator[Publisher]:
    """A process that publishes from the store of `build_env`."""
    argv = [sys.executable, "-m", "tests.support.killed_publisher", str(build_env.store.root), str(home)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Publisher(process)
    finally:
        process.kill()
        process.communicate()


# --- inside --------------------------------------------------------------------------------------------


class _Fuse:
    """Counts steps, and kills this process in front of one."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def lay(self, root: str) -> None:
        """`root`: the directory mirror's path, or empty."""
        for kind in (DirectoryRepository, RegistryRepository):
            for name in CALLS:
                setattr(kind, name, self._before(getattr(kind, name)))
        sent = RegistryClient._sent

        @contextlib.contextmanager
        def counted(exchange: RegistryClient, method: str, *rest: Any) -> Iterator[Any]:
            changes = method not in {"GET", "HEAD"}
            if changes:
                self.step()
            with sent(exchange, method, *rest) as response:
                if changes:
                    self.step()
                yield response

        RegistryClient._sent = counted  # type: ignore[method-assign]
        if root:
            sys.addaudithook(lambda event, arguments: self._audited(event, arguments, root))

    def _before(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> Any:
            self.step()
            return original(*arguments, **named)

        return call

    def _audited(self, event: str, arguments: tuple[Any, ...], root: str) -> None:
        if event not in _FILES:
            return
        if not any(str(one).startswith(root) for one in arguments if isinstance(one, str | os.PathLike)):
            return
        if event == "open":
            path, _, flags = arguments
            if not flags & _MADE or Path(path).exists():  # opened to be read, or a lock
                return
        self.step()


def _mirror_path(task: Task) -> str:
    """The path of the directory mirror that changes, or an empty text."""
    address = parse_address(task.to if task.do in {"publish", "copy"} else task.what)
    if address.form != DIRECTORY:
        return ""
    found = find_root(address.path)
    return str(found[0] if found else address.path)


def _outcome(task: Task, build_env: BuildEnvironment) -> Outcome:
    began = time.monotonic()
    try:
        perform(task, build_env)
    except RelbuildError as error:
        return Outcome(False, error.code, str(error), int(error.exit_code), time.monotonic() - began)
    return Outcome(seconds=time.monotonic() - began)


def _killed(task: Task, build_env: BuildEnvironment) -> Outcome:
    """In a fork, so that all is loaded already."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _Fuse(task.kill_at).lay(_mirror_path(task))
        os.write(writing, json.dumps(asdict(_outcome(task, build_env))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Outcome(killed=True)
    return Outcome(**json.loads(said))


def _main(store: Path, home: str) -> None:
    build_env = BuildEnvironment(Store.open(store), QUIET, {"HOME": home}, time.time)
    for line in sys.stdin:
        value = json.loads(line)
        task = Task(**{**value, "tags": tuple(value["tags"])})
        outcome = _killed(task, build_env) if task.kill_at else _outcome(task, build_env)
        print(json.dumps(asdict(outcome)), flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
