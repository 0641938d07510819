"""A process forks where it has one thread, and one that the system still lets go of is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.progress import QUIET, Progress, undrawn
from tests.support.patience import HUNG
from tests.support.source import ROOT

_ASKED = """
import ctypes, threading, time
from pipeline import forked_child
forked_child.usable_processors = lambda: 2.0
libc, goes = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.sem_init(goes, 0, 0)
def native():
    "Have the system run a thread of which Python does not know, as of one that it has joined, until `goes`."
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, libc.sem_wait, goes) == 0
looks = []
class Clock:
    monotonic = staticmethod(time.monotonic)
    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3: libc.sem_post(goes)
        time.sleep(seconds)
"""


@pytest.mark.parametrize(
    "words",
    [
        "assert forked_child.may_fork() and not looks",
        f"forked_child._LEFT_WITHIN = {HUNG}; forked_child.time = Clock; native(); assert forked_child.may_fork(); "
        "assert len(looks) >= 3",
        "forked_child._LEFT_WITHIN = 0.2; native(); begun = time.monotonic(); assert not forked_child.may_fork(); "
        "assert time.monotonic() - begun >= 0.2",
        # No thread of Python's own is waited for: it may stay.
        "end = threading.Event(); threading.Thread(target=end.wait).start(); forked_child.time = Clock; "
        "assert not forked_child.may_fork() and not looks; end.set()",
    ],
    ids=["one thread", "one that is left", "one that stays", "one of Python's"],
)
def test_a_thread_that_has_ended_is_waited_for(words: str) -> None:
    command = [sys.executable, "-c", _ASKED + words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HUNG, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_programs_own_progress_need_not_be_one_that_draws() -> None:
    """It has the three members that the protocol has always had."""

    class Own:
        start, finish, warn = QUIET.start, QUIET.finish, QUIET.warn

    told: Progress = Own()
    with undrawn(told):
        pass
