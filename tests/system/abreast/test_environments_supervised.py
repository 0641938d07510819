"""`ci/environments` ends what it has started, however it ends itself."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.source import ROOT
from tests.support.tiny_root import require_root

WITHIN = 30.0
"""Seconds until the kernel has ended the processes: it takes a hundredth of one."""

SUPERVISOR = """
import sys
sys.path.insert(0, sys.argv[1])
from supervised import supervise
sys.exit(supervise(sys.argv[2:]))
"""

PROGRAM = """
import subprocess, sys, time
left = ["sh", "-c", "trap '' HUP INT TERM; sleep 600; true", sys.argv[1]]
subprocess.Popen(left, start_new_session=True, stdin=-3, stdout=-3)
subprocess.run(["setsid", "--fork", *left], stdout=-3)
try:
    print("up", flush=True)
    time.sleep(float(sys.argv[2]))
except KeyboardInterrupt:
    print("put away", flush=True)
sys.exit(7)
"""


def with_word(word: str) -> list[str]:
    """Command lines of processes that have a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(str(words))
    return found


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        (lambda process: None, 7, b""),
        (lambda process: process.send_signal(signal.SIGTERM), 143, b"put away\n"),
        (lambda process: process.kill(), -9, None),
    ],
    ids=["ended", "terminated", "killed"],
)
def test_nothing_is_left_of_a_supervised_program(
    end: Callable[[subprocess.Popen[bytes]], None], status: int, said: bytes | None
) -> None:
    require_root()
    word = f"left-{secrets.token_hex(8)}"
    lasts = "0.1" if status == 7 else "600"
    command = [sys.executable, "-c", SUPERVISOR, ROOT / "ci/environments.d", sys.executable, "-c", PROGRAM, word, lasts]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        if status != 7:
            assert len(with_word(word)) >= 3
        end(process)
        assert process.wait(WITHIN) == status
        if said is not None:
            assert process.stdout.read() == said
    deadline = time.monotonic() + WITHIN
    while with_word(word) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert with_word(word) == []
