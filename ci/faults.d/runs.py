"""One command of relbuild in a fork of this process, in which everything is loaded, with or without a fault."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from plan import Fault, Plan

from pipeline.cli.main import COMMANDS, run
from pipeline.cli.signals import end_at_once
from pipeline.cli.streams import open_streams

PASSWORD = "of the faults"
_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended: its status (negative: a signal), what it printed, and how often the fault happened."""

    status: int
    out: str
    err: str
    fired: int = 0
    seconds: float = 0.0


def load_all() -> None:
    """Import all commands once, so that a fork has them."""
    for name in COMMANDS:
        importlib.import_module(f"pipeline.cli.{name}")


@dataclass(frozen=True, slots=True)
class Injected:
    """What happens to a run: `fault` to the call with the number `at`, or, with `forever`, from it on. `sends`: to what
    is sent over the network too. `plan` counts the calls; without a fault it does only that."""

    plan: Plan
    fault: Fault | None = None
    at: int = 0
    forever: bool = False
    sends: bool = False


def relbuild(words: list[str], work: Path, scratch: Path, injected: Injected | None = None) -> Ran:
    """Run a command in `work`; what it prints goes through `scratch`."""
    out, err = scratch / "out", scratch / "err"
    begin, go = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(go)
        _child(words, work, out, err, begin)
    os.close(begin)
    if injected is not None:
        injected.plan.arm(child, work, injected.fault, injected.at, forever=injected.forever, sends=injected.sends)
    os.close(go)
    status = _wait(child)
    fired = injected.plan.disarm() if injected is not None else 0
    return Ran(status, _text(out), _text(err), fired, time.monotonic() - began)


def _child(words: list[str], work: Path, out: Path, err: Path, begin: int) -> None:
    os.setsid()
    os.chdir(work)
    os.environ["HOME"] = str(work)
    os.environ["RELBUILD_KEY_PASSWORD"] = PASSWORD
    for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
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
        run()
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
