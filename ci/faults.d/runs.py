"""One command of relbuild in a fork of this process, in which everything is loaded, with or without a fault."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import io
import multiprocessing.util
import os
import pkgutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import typer.main
from plan import Fault, Plan

import pipeline
from pipeline.cli.app import CommandContext, app
from pipeline.cli.main import run_command_line
from pipeline.cli.signals import end_at_once
from pipeline.cli.standard_streams import open_streams
from pipeline.mirror.backends.registry import registry_repository
from pipeline.oci import generate_key, private_key
from pipeline.store import seal_key as store_keys
from pipeline.transfer.retry import SharedPause

PASSWORD = "of the faults"
_SECONDS = 180.0
_LATE = (
    "email.headerregistry",
    "importlib_metadata",
    "pydantic.type_adapter",
    "pyroute2.netlink",
    "pyroute2",
    "typer._click",
)
"""Modules that libraries import when they are used."""

_NOT_LOADED = (".__main__",)
"""Modules that run something when they are imported."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: its status (negative: a signal), what it printed, and how often the fault happened."""

    status: int
    out: str
    err: str
    fired: int = 0
    seconds: float = 0.0


def load_all() -> None:
    """Import all of relbuild and build its command line once, so that a fork has them."""
    for name in (*_LATE, *(module.name for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."))):
        if not name.endswith(_NOT_LOADED):
            importlib.import_module(name)
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)
    # What is here now is not looked at by a fork's collector, which would copy every page.
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True)
class Injected:
    """What happens to a run: `fault` to the call with the number `at`, or, with `forever`, from it on. `sends`: to what
    is sent over the network too. `plan` counts the calls; without a fault it does only that."""

    plan: Plan
    fault: Fault | None = None
    at: int = 0
    forever: bool = False
    sends: bool = False


def relbuild(words: list[str], work: Path, scratch: Path, injected: Injected | None = None, *, at: float) -> Ran:
    """Run a command in `work`, at `at` by its clock; what it prints goes through `scratch`."""
    begin, go = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(go)
        _child(words, work, scratch, begin, at)
    os.close(begin)
    if injected is not None:
        injected.plan.arm(child, work, injected.fault, injected.at, forever=injected.forever, sends=injected.sends)
    os.close(go)
    status = _wait(child)
    fired = injected.plan.disarm() if injected is not None else 0
    return Ran(status, _text(scratch / "out"), _text(scratch / "err"), fired, time.monotonic() - began)


def _child(words: list[str], work: Path, scratch: Path, begin: int, at: float) -> None:
    os.setsid()
    os.chdir(work)
    _be_the_same_each_time(at)
    os.environ["HOME"] = str(work)
    os.environ["RELBUILD_KEY_PASSWORD"] = PASSWORD
    for number, path in ((0, Path(os.devnull)), (1, scratch / "out"), (2, scratch / "err")):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.read(begin, 1)
    os.close(begin)
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_at_once()
        open_streams()
        sys.argv = ["relbuild", *words]
        run_command_line()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int:
    deadline = time.monotonic() + _SECONDS
    pause = 0.002
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def _fork_instead(_: object, words: list[str | bytes], kept: tuple[int, ...]) -> int:
    """In place of `multiprocessing.util.spawnv_passfds`: a process of its own as well, but with all loaded already."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        last = 2
        for handle in (*sorted(set(kept) - {0, 1, 2}), os.sysconf("SC_OPEN_MAX")):
            os.closerange(last + 1, handle)
            last = handle
        for number in signal.Signals:
            if signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL, None):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        exec(os.fsdecode(words[-1]), {"__name__": "__main__"})
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


def _be_the_same_each_time(at: float) -> None:
    """Give each run the same clock and the store's own key the same bytes, so that what two of them leave is the same.
    Processes that Python starts for it have what is loaded here."""
    for place, name, value in (
        (CommandContext, "clock", property(lambda _: functools.partial(float, at))),
        (registry_repository, "LISTING_PAUSE_MOST", 0.0),  # for other publishers, of whom there are none
        (SharedPause, "sleep", lambda pace, _: pace.wait()),  # before a request is made again
        (multiprocessing.util, "spawnv_passfds", _fork_instead),
        (store_keys, "secrets", SimpleNamespace(token_bytes=bytes)),
    ):
        setattr(place, name, value)


def keys(name: Path) -> None:
    """Make a pair of keys at `name`, whose password is cheap to try: what it costs is not what is asked about here."""
    with patch.object(private_key, "SCRYPT_N", 2):
        private, public = generate_key(PASSWORD.encode())
    for suffix, data in ((".key", private), (".pub", public)):
        name.with_suffix(suffix).write_bytes(data)
        name.with_suffix(suffix).chmod(0o600)


def reap() -> None:
    """Let go of what ended and was adopted."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
