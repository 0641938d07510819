"""A process is left without taking the interpreter apart, after threads and exit functions."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

TORN_DOWN = "class Last:\n    def __del__(self): print('taken apart', flush=True)\nkept = Last()\n"
"""Tells that Python cleared the main module."""


def run(body: str, *options: str) -> tuple[int, str]:
    """Run a program with `body` in the block; return its status and output."""
    ended = run_whole(body, *options)
    return ended.returncode, ended.stdout


def run_whole(body: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program with `body` in the block."""
    block = "with PromptExit():\n" + "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    program = f"from pipeline.cli.process_exit import PromptExit\n{TORN_DOWN}{block}"
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("end", "status"),
    [("pass", 0), ("import sys; sys.exit()", 0), ("import sys; sys.exit(0)", 0), ("import sys; sys.exit(6)", 6)],
)
def test_the_process_ends_with_the_blocks_status(end: str, status: int) -> None:
    """Nothing is cleared, and what was printed and not flushed is written."""
    assert run(f"print('said')\n{end}") == (status, "said\n")


def test_threads_and_exit_functions_end_before() -> None:
    """A thread is joined, then exit functions are called, whoever registered them."""
    body = """
        import atexit, threading, time
        atexit.register(print, "exit function")
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    """
    assert run(body) == (0, "thread\nexit function\n")


@pytest.mark.parametrize("end", ["import sys; sys.exit('message')", "raise ValueError"])
def test_other_ends_are_pythons_own(end: str) -> None:
    """A message is printed, a defect has its traceback, and the status is 1."""
    assert run(end) == (1, "taken apart\n")


def test_a_stream_that_cannot_be_flushed_is_pythons_own() -> None:
    """Its status is 120, as of any Python program."""
    status, _ = run("import sys; sys.stdout = open('/dev/full', 'w'); print('said')")
    assert status == 120


def test_errors_that_wait_in_a_buffer_are_written() -> None:
    """Python's own stream keeps a line that was not ended, and one that replaces it may keep all."""
    assert run_whole("import sys; sys.stderr = open(2, 'w'); sys.stderr.write('said')").stderr == "said"


def test_who_inspects_the_process_has_it_ended_by_python() -> None:
    """After `-i` the status is that of what is typed, here nothing."""
    assert run("import sys; sys.exit(6)", "-i") == (0, "taken apart\n")


def test_the_command_line_is_left_like_that() -> None:
    """Python tells of each module that it clears, if it is asked to be verbose."""
    told = "# cleanup"
    plain = subprocess.run([sys.executable, "-v", "-c", ""], capture_output=True, text=True, check=True)
    assert told in plain.stderr
    command = [sys.executable, "-v", "-m", "pipeline", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("relbuild ") and told not in ended.stderr
