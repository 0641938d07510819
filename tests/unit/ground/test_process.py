"""Commands run with a clean environment, bounded output and a deadline."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.process import (
    PIPE,
    CommandFailed,
    CommandGroup,
    DeadlinePassed,
    Process,
    kill_group,
    run,
    start,
    wait_unreaped,
)
from tests.support.patience import HUNG


def test_nothing_of_the_callers_environment_reaches_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "de_DE")
    done = run(["env"], timeout=HUNG, environment={"MINE": "1"})
    names = {line.split("=")[0] for line in done.stdout.decode().split()}
    assert names == {"PATH", "LANG", "LC_ALL", "TZ", "MINE"}


def test_input_is_fed_and_both_outputs_come_back() -> None:
    done = run(["sh", "-c", "cat; echo err >&2"], stdin=b"in", timeout=HUNG)
    assert (done.stdout, done.stderr, done.status) == (b"in", b"err\n", 0)


def test_without_input_there_is_none() -> None:
    assert run(["cat"], timeout=HUNG).stdout == b""


def test_a_failure_says_what_the_command_said() -> None:
    with pytest.raises(CommandFailed, match="ended with status 3: oh no") as caught:
        run(["sh", "-c", "echo oh no >&2; exit 3"], timeout=HUNG)
    assert caught.value.code == "command-failed"
    assert run(["false"], timeout=HUNG, check=False).status == 1


def test_a_missing_program_is_named() -> None:
    with pytest.raises(EnvironmentLacking, match="'no-such-program' was not found in PATH"):
        run(["no-such-program"], timeout=HUNG)


def ends(pid: int) -> bool:
    """Whether a process ends, or has ended and nobody waits for it."""
    until = time.monotonic() + HUNG
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_deadline_ends_the_command_with_all_that_it_started() -> None:
    for seconds in (0.3, 3, 30, HUNG):  # On a busy machine it may take a while until it has begun.
        done = run(["sh", "-c", "sleep 3600 & echo $!; wait"], timeout=seconds, check=False)
        assert done.timed_out
        if done.stdout:
            break
    assert ends(int(done.stdout)), "the child outlived the deadline"


@pytest.fixture(params=[True, False], ids=["by its descriptor", "on a kernel without them"])
def descriptors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process is told by its descriptor, or there are none."""

    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not request.param:
        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("descriptors")
def test_a_process_that_is_waited_for_unreaped_keeps_its_number() -> None:
    process = start(["sh", "-c", "read line; exit 3"], stdin=PIPE)
    assert process.stdin is not None
    with process.stdin, pytest.raises(DeadlinePassed):
        wait_unreaped(process, 0)
    wait_unreaped(process, HUNG)
    wait_unreaped(process, 0)
    assert process.returncode is None and ends(process.pid)
    assert Path(f"/proc/{process.pid}").exists()
    assert process.wait() == 3
    wait_unreaped(process, 0)


@pytest.mark.usefixtures("descriptors")
def test_what_a_process_has_started_is_killed_with_its_group_also_after_its_end() -> None:
    process = start(["sh", "-c", "sleep 300 & echo $!"], stdout=PIPE)
    assert process.stdout is not None
    with process.stdout as told:
        child = int(told.readline())
    wait_unreaped(process, HUNG)
    commands = CommandGroup()
    with pytest.raises(ValueError, match="failed"), commands:
        commands.add(process)
        raise ValueError("failed")
    assert ends(child)
    assert process.wait() == 0, "it had ended by itself"


def test_no_group_is_killed_by_the_number_of_a_process_that_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(["true"])
    assert process.wait() == 0
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("it may be another's"))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it may be another's"))
    kill_group(process)
    commands = CommandGroup()
    with pytest.raises(ValueError, match="failed"), commands:
        commands.add(process)
        raise ValueError("failed")


@pytest.mark.usefixtures("descriptors")
def test_a_command_that_was_run_keeps_its_number_as_long_as_its_group_may_be_killed() -> None:
    seen: list[bool] = []

    class Watching(CommandGroup):
        def discard(self, process: Process) -> None:
            seen.append(process.returncode is None and Path(f"/proc/{process.pid}").exists())
            super().discard(process)

    commands = Watching()
    with ThreadPoolExecutor(1, initializer=commands.join) as beside, commands:
        done = beside.submit(run, ["echo", "done"], timeout=HUNG)
    assert done.result().stdout == b"done\n" and seen == [True]


def test_a_flood_of_output_is_cut_to_its_end() -> None:
    done = run(["sh", "-c", "yes x | head -c 5000000; echo end"], timeout=HUNG, output_limit=1000)
    assert len(done.stdout) == 1000 and done.stdout.endswith(b"end\n")


def test_the_commands_of_a_thread_are_killed_when_the_block_that_it_works_for_raises(tmp_path: Path) -> None:
    begun, commands = tmp_path / "begun", CommandGroup()
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117 - the pool ends within.
        with ThreadPoolExecutor(1, initializer=commands.join) as beside, commands:
            first = beside.submit(run, ["sh", "-c", f"touch {begun}; sleep 300 & wait"], timeout=300, check=False)
            later = beside.submit(run, ["sleep", "300"], timeout=300, check=False)
            while not begun.exists():
                time.sleep(0.01)
            raise KeyboardInterrupt
    assert [one.result().status for one in (first, later)] == [-9, -9]


def test_the_commands_of_a_thread_end_by_themselves_where_nothing_is_raised() -> None:
    commands = CommandGroup()
    with ThreadPoolExecutor(1, initializer=commands.join) as beside, commands:
        done = beside.submit(run, ["sh", "-c", "sleep 0.1; echo done"], timeout=HUNG)
    assert done.result().stdout == b"done\n"


def test_a_command_of_another_thread_is_left_alone() -> None:
    commands = CommandGroup()
    with ThreadPoolExecutor(1) as other:
        done = other.submit(lambda: run(["sh", "-c", "sleep 0.2; echo done"], timeout=HUNG))
        with pytest.raises(ValueError, match="failed"), commands:
            raise ValueError("failed")
    assert done.result().stdout == b"done\n"
