"""A signal ends a command with one line wherever it comes, also where what a handler raises is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.patience import HUNG

_PROGRAM = """
import contextlib, gc, os, signal, sys, threading
sys.path.insert(0, {folder!r})
from pipeline.cli.signals import end_at_once
end_at_once()
from pipeline.cli.app import CommandContext, perform
from pipeline.progress import QUIET

def send():
    os.kill(os.getpid(), {number})

def act(context):
{act}
    print("ended", flush=True)
    return 0

perform(act, CommandContext(QUIET), "run it again")
"""

_TEXTS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}

_SENDING = "import os, signal\nnumber = {number}\n"
_NAMED = """
class Named:
    def __set_name__(self, *_):
        os.kill(os.getpid(), number)
class Holder:
    attribute = Named()
"""
_CLEAN = "with contextlib.suppress(Exception):\n    import sending\n"
_LAZY = """
from pipeline.lazy_dataclasses import _FirstUse
class Lazy:
    {name} = _FirstUse(lambda _: send() or (lambda *_: 1))
"""
_MODEL = """
from enum import Enum
from pydantic import BaseModel
armed = []
class Value:
    def __hash__(self):
        if armed: send()
        return 1
class Kind(Enum):
    ONE = Value()
armed.append(1)
with contextlib.suppress(Exception):
    class Model(BaseModel):
        kind: Kind
assert armed, "a SchemaError"
"""
_ACTS = {
    "in a line": ("send()", ""),
    "while a class is made": (_CLEAN, _NAMED),
    "in an import of an import": (_CLEAN, "import sending_below\n"),
    "by importlib": (
        "import importlib\nwith contextlib.suppress(Exception): importlib.import_module('sending')",
        _NAMED,
    ),
    "while a class is made outside of an import": (
        "class Named:\n    def __set_name__(self, *_): send()\n"
        "with contextlib.suppress(Exception):\n    class Holder:\n        attribute = Named()\n",
        "",
    ),
    "while an object is freed": ("class Freed:\n    def __del__(self): send()\nFreed()\n", ""),
    "in a callback": ("import ctypes\nctypes.CFUNCTYPE(None)(send)()\n", ""),
    "while a dataclass's hash is made": (_LAZY.format(name="__hash__") + "hash(Lazy())\n", ""),
    "while a dataclass's comparison is made": (_LAZY.format(name="__eq__") + "assert Lazy() == Lazy()\n", ""),
    "while a pydantic model is made": (_MODEL, ""),
    "as another error": (
        "try: send()\nexcept BaseException as ended: raise RuntimeError('made of it') from ended\n",
        "",
    ),
    "as an error in its place": ("try: send()\nfinally: raise RuntimeError('made of it')\n", ""),
    "in an import that hangs": ("import sending", "os.kill(os.getpid(), number)\nwhile True: pass\n"),
    "in an import that hangs and drops it": (
        _CLEAN,
        "class Named:\n    def __set_name__(self, *_):\n"
        "        os.kill(os.getpid(), number)\n        while True: pass\n"
        "try:\n    class Holder: attribute = Named()\nexcept BaseException: pass\n",
    ),
    "twice in an import": (_CLEAN, _NAMED + "os.kill(os.getpid(), number)\n"),
}


_TOLD = """
import signal
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getitimer(signal.ITIMER_REAL))
print(*(signal.getsignal(one) is signal.SIG_IGN for one in (1, 2, 14, 15)))
"""


def _command(tmp_path: Path, number: signal.Signals, act: str, module: str) -> list[str]:
    sending = _SENDING.format(number=int(number))
    (tmp_path / "sending.py").write_text(sending + module)
    (tmp_path / "sending_below.py").write_text(sending + _NAMED)
    program = _PROGRAM.format(folder=str(tmp_path), number=int(number), act=textwrap.indent(act, "    "))
    return [sys.executable, "-c", program]


def _run(tmp_path: Path, number: signal.Signals, act: str, module: str) -> subprocess.CompletedProcess[str]:
    command = _command(tmp_path, number, act, module)
    return subprocess.run(command, capture_output=True, text=True, timeout=HUNG, check=False)


@pytest.mark.parametrize("place", _ACTS)
@pytest.mark.parametrize("number", list(_TEXTS))
def test_a_signal_ends_the_command_wherever_it_comes(tmp_path: Path, number: signal.Signals, place: str) -> None:
    act, module = _ACTS[place]
    done = _run(tmp_path, number, f"{act}\nwhile context: pass\n", module)
    assert (done.returncode, done.stderr) == (128 + number, f"{_TEXTS[number]}; run it again\n")
    assert done.stdout == ""


@pytest.mark.parametrize("place", _ACTS)
@pytest.mark.parametrize("number", list(_TEXTS))
def test_a_command_that_ends_before_a_signal_is_raised_is_ended_by_it(
    tmp_path: Path, number: signal.Signals, place: str
) -> None:
    done = _run(tmp_path, number, *_ACTS[place])
    assert (done.returncode, done.stderr) == (128 + number, f"{_TEXTS[number]}; run it again\n")


@pytest.mark.parametrize("number", list(_TEXTS))
@pytest.mark.parametrize("place", ["closing the progress", "closing it without a first"])
def test_a_signal_while_the_command_ends_has_one_line(tmp_path: Path, number: signal.Signals, place: str) -> None:
    act = {
        "closing the progress": "from pipeline.cli import app\napp.close = lambda _: send()\nsend()\n",
        "closing it without a first": "from pipeline.cli import app\napp.close = lambda _: send()\n",
    }[place]
    done = _run(tmp_path, number, act, "")
    assert (done.returncode, done.stderr) == (128 + number, f"{_TEXTS[number]}\n")


_AFTER_THE_FIRST = {
    "before its line is printed": "from pipeline.cli import app\n"
    "tell, app.print_lines = app.print_lines, lambda text: (send(), tell(text))\nsend()\n",
    "after its line is printed": "from pipeline.cli import app\n"
    "tell, app.print_lines = app.print_lines, lambda text: (tell(text), send())\nsend()\n",
    "closing the progress again": "from pipeline.cli import app\n"
    "calls = []\napp.close = lambda _: calls.append(0) if not calls else send()\nsend()\n",
    "at the process's end": "import atexit\natexit.register(print, 'unheard', flush=True)\n"
    "atexit.register(send)\nsend()\n",
}


@pytest.mark.parametrize("number", list(_TEXTS))
@pytest.mark.parametrize("place", _AFTER_THE_FIRST)
def test_a_signal_after_the_first_has_no_line(tmp_path: Path, number: signal.Signals, place: str) -> None:
    done = _run(tmp_path, number, _AFTER_THE_FIRST[place], "")
    assert (done.returncode, done.stderr) == (128 + number, f"{_TEXTS[number]}; run it again\n")
    assert done.stdout == ""


def test_what_starts_relbuild_may_block_alarms(tmp_path: Path) -> None:
    """As it may ignore them: what comes in an import is raised after it all the same."""
    act, module = _ACTS["while a class is made"]
    change = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); signal.signal(signal.SIGALRM, signal.SIG_IGN)"
    done = _run(tmp_path, signal.SIGINT, f"{change}\n{act}\nwhile context: pass\n", module)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted; run it again\n")


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As by `nohup`, also in an import."""
    for act, module in (_ACTS["in a line"], _ACTS["while a class is made"]):
        command = _command(tmp_path, signal.SIGHUP, act, module)
        done = subprocess.run(["nohup", *command], capture_output=True, text=True, timeout=HUNG, check=False)
        assert (done.returncode, done.stdout) == (0, "ended\n")


def test_processes_that_a_command_starts_have_no_signal_blocked_or_ignored(tmp_path: Path) -> None:
    """Also one that is started while a signal waits for the end of an import."""
    module = f"os.kill(os.getpid(), number)\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {_TOLD!r}])"
    act = f"from pipeline.cli import signals\nsignals.PATIENCE = {HUNG}\nimport sending\nwhile context: pass\n"
    done = _run(tmp_path, signal.SIGINT, act, module)
    assert (done.returncode, done.stderr) == (130, "interrupted; run it again\n")
    assert done.stdout == "set() (0.0, 0.0)\nFalse False False False\n"


def test_what_is_dealt_with_is_no_end_of_the_command(tmp_path: Path) -> None:
    """As where an instance is held until Ctrl-C: errors after it are told as errors."""
    caught = "try: send()\nexcept KeyboardInterrupt: pass\n"
    done = _run(tmp_path, signal.SIGINT, caught, "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
    done = _run(tmp_path, signal.SIGINT, caught + "raise ValueError('wrong')\n", "")
    assert done.returncode == 70 and "wrong" in done.stderr and "interrupted" not in done.stderr


def test_other_lost_errors_are_printed_as_ever(tmp_path: Path) -> None:
    done = _run(tmp_path, signal.SIGINT, "class Freed:\n    def __del__(self): 1 / 0\nFreed()\n", "")
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert "Exception ignored in" in done.stderr and "ZeroDivisionError" in done.stderr
