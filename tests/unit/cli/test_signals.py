"""A signal ends a command with one line wherever it comes, also where what a handler raises is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
    print("went on", flush=True)
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
    "in a callback": (
        "import ctypes\nctypes.CFUNCTYPE(None)(send)()\nwhile context: pass\n",
        "",
    ),
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


def _run(tmp_path: Path, number: signal.Signals, act: str, module: str) -> subprocess.CompletedProcess[str]:
    sending = _SENDING.format(number=int(number))
    (tmp_path / "sending.py").write_text(sending + module)
    (tmp_path / "sending_below.py").write_text(sending + _NAMED)
    program = _PROGRAM.format(folder=str(tmp_path), number=int(number), act=textwrap.indent(act, "    "))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("place", _ACTS)
@pytest.mark.parametrize("number", list(_TEXTS))
def test_a_signal_ends_the_command_wherever_it_comes(tmp_path: Path, number: signal.Signals, place: str) -> None:
    done = _run(tmp_path, number, *_ACTS[place])
    assert (done.returncode, done.stderr) == (128 + number, f"{_TEXTS[number]}; run it again\n")
    assert done.stdout == ""


def test_what_is_dealt_with_is_no_end_of_the_command(tmp_path: Path) -> None:
    """As where an instance is held until Ctrl-C: errors after it are told as errors."""
    caught = "try: send()\nexcept KeyboardInterrupt: pass\n"
    done = _run(tmp_path, signal.SIGINT, caught, "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
    done = _run(tmp_path, signal.SIGINT, caught + "raise ValueError('wrong')\n", "")
    assert done.returncode == 70 and "wrong" in done.stderr and "interrupted" not in done.stderr


def test_other_lost_errors_are_printed_as_ever(tmp_path: Path) -> None:
    done = _run(tmp_path, signal.SIGINT, "class Freed:\n    def __del__(self): 1 / 0\nFreed()\n", "")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "Exception ignored in" in done.stderr and "ZeroDivisionError" in done.stderr
