"""A process forks where it has one thread, and one that the system still lets go of is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.source import ROOT

_ASKED = """
import ctypes, threading, time
from pipeline import forked_child
forked_child.usable_processors = lambda: 2.0
libc = ctypes.CDLL(None)
def native(seconds):
    "Have the system run a thread of which Python does not know, as of one that it has joined."
    thread, time = ctypes.c_ulong(), ctypes.c_void_p(int(seconds * 1e6))
    assert libc.pthread_create(ctypes.byref(thread), None, libc.usleep, time) == 0
def asked():
    begun = time.monotonic()
    return forked_child.may_fork(), time.monotonic() - begun
"""


@pytest.mark.parametrize(
    "words",
    [
        "answer, _ = asked(); assert answer",
        "native(0.3); answer, took = asked(); assert answer and took > 0.1",
        "forked_child._LEFT_WITHIN = 0.2; native(60); answer, took = asked(); assert not answer and took >= 0.2",
        # No thread of Python's own is waited for: it may stay.
        "threading.Thread(target=time.sleep, args=(0.3,)).start(); answer, _ = asked(); assert not answer; "
        "assert threading.active_count() == 2",
    ],
    ids=["one thread", "one that is left", "one that stays", "one of Python's"],
)
def test_a_thread_that_has_ended_is_waited_for(words: str) -> None:
    command = [sys.executable, "-c", _ASKED + words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
