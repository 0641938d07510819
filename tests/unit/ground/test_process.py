"""Commands run with a clean environment, bounded output and a deadline."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.process import CommandFailed, run


def test_nothing_of_the_callers_environment_reaches_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "de_DE")
    names = {line.split("=")[0] for line in run(["env"], timeout=10, environment={"MINE": "1"}).stdout.decode().split()}
    assert names == {"PATH", "LANG", "LC_ALL", "TZ", "MINE"}


def test_input_is_fed_and_both_outputs_come_back() -> None:
    done = run(["sh", "-c", "cat; echo err >&2"], stdin=b"in", timeout=10)
    assert (done.stdout, done.stderr, done.status) == (b"in", b"err\n", 0)


def test_without_input_there_is_none() -> None:
    assert run(["cat"], timeout=10).stdout == b""


def test_a_failure_says_what_the_command_said() -> None:
    with pytest.raises(CommandFailed, match="ended with status 3: oh no") as caught:
        run(["sh", "-c", "echo oh no >&2; exit 3"], timeout=10)
    assert caught.value.code == "command-failed"
    assert run(["false"], timeout=10, check=False).status == 1


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentLacking, match="'no-such-program' was not found in PATH"):
        run(["no-such-program"], timeout=10)


def test_a_deadline_ends_the_command_with_all_that_it_started() -> None:
    done = run(["sh", "-c", "sleep 61 & echo $!; wait"], timeout=0.3, check=False)
    assert done.timed_out
    child = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        pytest.fail("the child outlived the deadline")


def test_a_flood_of_output_is_cut_to_its_end() -> None:
    done = run(["sh", "-c", "yes x | head -c 5000000; echo end"], timeout=30, output_limit=1000)
    assert len(done.stdout) == 1000 and done.stdout.endswith(b"end\n")
