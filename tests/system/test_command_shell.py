"""Commands one after the other in one container: the same for each as in a container of its own, whatever they do."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BuildError
from pipeline.sandbox import BuildLimits, BuildSession, SandboxRegistry, build_session
from pipeline.sandbox.command_shell import CommandShell
from tests.support.commands_in_turn import PROBE, TARGET, InTurn, comparable, root, turn
from tests.support.sandbox_images import left_behind
from tests.support.tiny_root import processes_of, require_groups

pytestmark = pytest.mark.brief

__all__ = ["root", "turn"]  # fixtures


class TestTheSame:
    def test_a_script_sees_the_same_process_in_either_way(self, turn: InTurn) -> None:
        first = turn.container()
        in_turn = [comparable(turn.script(PROBE, "x", "y 'z'")) for _ in range(2)]
        assert turn.container() == first != "", "it was not run in turn"
        turn.session.end_commands()
        alone = comparable(turn.script(PROBE, "x", "y 'z'"))
        assert in_turn[0] == in_turn[1]
        assert in_turn[0][1].splitlines() == alone[1].splitlines()
        assert in_turn[0] == alone
        assert alone[0] == 9 and alone[2] == b"error\n"
        assert re.search(r"^SigIgn:\s*0+$", alone[1].split("=child")[1], re.MULTILINE)
        assert "A=b 'c' $d" in alone[1]

    def test_another_program_gets_exactly_its_environment(self, turn: InTurn) -> None:
        first = turn.container()
        told = [turn.session.run(["/bin/cat", "/proc/self/environ"], environment={"B": "1"}).stdout]
        assert turn.container() == first != ""
        turn.session.end_commands()
        told.append(turn.session.run(["/bin/cat", "/proc/self/environ"], environment={"B": "1"}).stdout)
        assert told[0] == told[1] and set(told[0].decode().split("\0")[:-1]) == {
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "B=1",
        }  # fmt: skip

    def test_statuses_and_signals_come_out(self, turn: InTurn) -> None:
        first = turn.container()
        for text, status in (("exit 0", 0), ("exit 255", 255), ("nosuch 2>/dev/null", 127)):
            assert turn.script(text).status == status
        for number in (2, 9, 13, 15):
            assert turn.script(f"kill -{number} $$").status == 128 + number
        assert turn.container() == first != ""

    @pytest.mark.parametrize("streams", ["", ">&2", "; yes | head -c 10000000 >&2"])
    def test_floods_of_output_are_counted(self, turn: InTurn, streams: str) -> None:
        first = turn.container()
        ended = turn.script(f"yes | head -c 10000000 {streams}; exit 6")
        limit, written = turn.session.limits.output, 10_000_000 * (1 + streams.startswith(";"))
        assert ended.status == 6 and len(ended.stdout) + len(ended.stderr) + ended.dropped == written
        assert max(len(ended.stdout), len(ended.stderr)) == limit
        assert turn.container() == first != ""

    def test_a_wait_whose_line_is_taken_away_goes_on(self, turn: InTurn, monkeypatch: pytest.MonkeyPatch) -> None:
        from pipeline.sandbox import command_shell

        read, taken = os.read, []

        def taken_once(end: int, size: int) -> bytes:
            if size == command_shell._LINE_LIMIT and not taken:
                taken.append(end)
                raise BlockingIOError
            return read(end, size)

        monkeypatch.setattr(os, "read", taken_once)
        assert turn.script("echo on; exit 3").status == 3
        assert taken

    def test_a_shells_own_numbers_for_signals_are_told_alike(
        self, turn: InTurn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline.sandbox import command_shell

        turn.session.end_commands()
        told = "[ $status -lt 128 ] || status=$((status + OFFSET))"
        for offset, number in ((128, 9), (256, 15)):  # ksh93's and yash's
            changed = command_shell.SHELL_SCRIPT.replace("  status=$?\n", f"  status=$?\n  {told}\n")
            monkeypatch.setattr(command_shell, "SHELL_SCRIPT", changed.replace("OFFSET", str(offset)))
            turn.begin()
            assert turn.script(f"kill -{number} $$").status == 128 + number
            assert turn.script("exit 5").status == 5
            turn.session.end_commands()
            monkeypatch.undo()

    def test_what_the_shell_would_not_do_alike_gets_a_container_of_its_own(self, turn: InTurn) -> None:
        first = turn.container()
        for argv in (["/bin/nowhere"], ["/srv/page"], ["nosuch"]):
            with pytest.raises(BuildError, match=argv[0]) as raised:
                turn.session.run(argv)
            assert raised.value.code == "command-not-started"
        assert turn.session.run(["/bin/echo", "é"]).stdout == "é\n".encode()
        assert turn.session.run(["cat", "/srv/page"]).stdout == b"a page\n"
        assert turn.session.run(["/bin/sh", "-c", "pwd"], directory="/srv").stdout == b"/srv\n"
        turn.session.files.write_file("/srv/script", b"#!/bin/nointerpreter\n", mode=0o755)
        assert not turn.session.run(["/srv/script"]).ok
        assert turn.container() == first != "", "none of them touched the shell's container"
        assert turn.script("echo on").stdout == b"on\n"

    def test_a_mount_made_meanwhile_is_seen(self, turn: InTurn, tmp_path: Path) -> None:
        assert turn.script("true").ok
        (tmp_path / "file").write_text("bound\n")
        turn.session.bind(tmp_path, "/run/relbuild-tools")
        assert turn.script("cat /run/relbuild-tools/file").stdout == b"bound\n"

    def test_an_image_without_a_shell_or_env_gets_containers_as_before(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        for missing in ("/bin/sh", "/bin/env"):
            with build_session([root], sandboxes=sandboxes, label="test") as session:
                session.files.remove(missing)
                turn = InTurn(session)
                assert turn.container() == ""
                assert session.run(["/bin/cat", "/srv/page"]).stdout == b"a page\n"


class TestLimits:
    def test_each_command_has_all_of_its_limits_and_is_told_its_own_excesses(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        limits = BuildLimits(memory=48 << 20, pids=20, output=1000, disk=8 << 20)
        with build_session([root], sandboxes=sandboxes, limits=limits) as session:
            turn = InTurn(session)
            for _ in range(2):
                hog = turn.script(f"/bin/probe hog {256 << 20}; exit 3")
                assert hog.out_of_memory and hog.status == 3, hog
                forks = turn.session.run(["/bin/probe", "forks", "100"])
                assert forks.pids_refused and forks.stdout == b"made 19\n", forks
                fine = turn.script("yes | head -c 5000")
                assert fine.ok and not fine.pids_refused and (len(fine.stdout), fine.dropped) == (1000, 4000)
                large = turn.session.run(["/bin/dd", "if=/dev/zero", "of=/var/large", "bs=1M", "count=20"])
                assert large.too_large or not large.ok
                session.files.remove("/var/large")
            slow = turn.script("sleep 1000 & sleep 1000", timeout=0.5)
            assert slow.timed_out and slow.status != 0 and slow.took < 10
            assert processes_of(session.shift) == []
            many = "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=/srv/$i bs=1M count=1; sleep 0.05; done"
            flood = turn.script(many, timeout=60)
            assert flood.out_of_disk and not flood.timed_out

    def test_alone_it_has_as_many_processes(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("processes of a build")
        with build_session([root], sandboxes=sandboxes, limits=BuildLimits(pids=20)) as session:
            assert session.run(["/bin/probe", "forks", "100"]).stdout == b"made 19\n"


LEFT = {
    "a process": "sleep 1000 >/dev/null 2>&1 &",
    "a process that holds the output": "sleep 1000 &",
    "a process that reads the output": "o=$(readlink /proc/$$/fd/1); cat $o >/dev/null 2>&1 &",
    "a process that reads the shell's input": "cat /proc/1/fd/0 >/dev/null 2>&1 &",
    "a stopped process": "sleep 1000 & kill -STOP $!",
    "a full /dev/shm": "dd if=/dev/zero of=/dev/shm/brim bs=1M count=400 2>/dev/null; true",
    "a hidden file in /dev/shm": "touch /dev/shm/.x",
    "a file in /dev": "touch /dev/left",
    "a link less in /dev": "rm /dev/stdin",
    "a link of another in /dev": "rm /dev/stdin && ln -s null /dev/stdin",
    "a link's owner in /dev": "chown -h 5 /dev/stdin",
    "a mode of /dev": "chmod 700 /dev",
    "a mode of /dev/shm": "chmod 700 /dev/shm",
    "a file named as a pattern": "touch '/dev/shm/*'",
    "a closed connection": "/bin/probe connection",
    "a segment": "/bin/probe segment",
    "a filled /tmp": "dd if=/dev/zero of=/tmp/brim bs=1M count=100 2>/dev/null; true",
    "another shell": "copy() { rm -f $2; dd if=$1 of=$2 2>/dev/null; chmod 755 $2; }; copy /bin/sh /bin/new; "
    "copy /bin/new /bin/sh",
}


class TestNothingOutlivesACommand:
    @pytest.mark.parametrize("left", LEFT)
    def test_what_is_left_ends_with_the_container(self, turn: InTurn, left: str) -> None:
        first = turn.container()
        ended = turn.script(LEFT[left])
        assert ended.ok and ended.took < 10, ended
        look = "ls -ld /dev /dev/shm; ls -A /dev/shm; ls -A /dev; cat /proc/sysvipc/shm; "
        look += "kill -0 -1 2>/dev/null && echo others; true"
        seen = turn.script(look)
        assert turn.container() != first, "the container was used again"
        assert seen.ok and not re.search(rb"brim|left|\.x|others", seen.stdout), seen
        assert seen.stdout.count(b"drwxr-xr-x") == 1 and seen.stdout.count(b"drwxrwxrwt") == 1, seen
        assert b"stdin" in seen.stdout and seen.stdout.rstrip().endswith(b"swap")
        assert turn.script("echo again").stdout == b"again\n"

    @pytest.mark.parametrize("user", ["", "27"])
    def test_a_process_left_behind_ends_with_its_command(
        self, turn: InTurn, monkeypatch: pytest.MonkeyPatch, user: str
    ) -> None:
        """It does not wait until relbuild gets to it."""
        wait = CommandShell._wait

        def late(*words: Any) -> object:
            ending = wait(*words)
            time.sleep(0.9)  # Longer than the process waits that was left.
            return ending

        monkeypatch.setattr(CommandShell, "_wait", late)
        ended = turn.session.run(["/bin/probe", "stray", "/srv/late", user or "0"])
        assert ended.ok, ended
        assert turn.session.files.stat("/srv/late") is not None
        assert turn.session.files.read("/srv/late", limit=10) == b""

    def test_processes_that_have_ended_leave_nothing(self, turn: InTurn) -> None:
        for _ in range(3):
            ended = turn.script("i=0; while [ $i -lt 50 ]; do (true &) ; i=$((i+1)); done; sleep 0.1; echo done")
            assert ended.stdout == b"done\n"
        assert turn.script("echo on").stdout == b"on\n"


ATTACKS = {
    "kill the shell": ("kill -9 1; kill -TERM 1; kill -HUP 1; exit 4", 4),
    "stop the shell": ("kill -STOP 1; exit 4", 4),
    "interrupt the shell": ("kill -INT 1; exit 4", 4),
    "interrupt its group": ("trap '' INT; kill -INT 0; exit 4", 4),
    "kill all": ("kill -9 -1; exit 4", 4),
    "close all": ("exec 0<&- 1>&- 2>&-; exit 4", 4),
    "fill the shell's pipes": ("timeout() { yes >/proc/1/fd/1 & sleep 0.3; kill $!; }; timeout; exit 4", None),
    "a line of its own": ("echo 0123456789abcdef 0 same >/proc/1/fd/1; exit 4", None),
    "a line without an end": ("head -c 100 /dev/zero >/proc/1/fd/1; exit 4", None),
    "lines for the shell": ("i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); done >/proc/1/fd/0; exit 4", None),
    "take the shell's input": ("exec </proc/1/fd/0; kill -9 $$", None),
    "write into the folder": (f"echo x >{TARGET}/script; rm -rf {TARGET}; mkdir {TARGET}/x; exit 4", 4),
    "become another": ("exec /bin/sleep 0", 0),
    "run out of processes": ("f() { f | f & }; f; exit 4", None),
    "remove the programs": ("rm -f /bin/env /usr/bin/env; exit 4", 4),
    "starve the shell": (f"/bin/probe hog {3 << 30}; exit 4", 4),
}


LASTING = 60
"""Seconds after which an attack has ended, as it does by itself and not because its time is over. A bash that can make
no process tries again for fifteen seconds."""


class TestMisbehaviour:
    @pytest.mark.parametrize("attack", ATTACKS)
    def test_it_harms_its_own_result_only(self, root: Path, sandboxes: SandboxRegistry, attack: str) -> None:
        text, status = ATTACKS[attack]
        limits = BuildLimits(memory=256 << 20, pids=60)
        with build_session([root], sandboxes=sandboxes, limits=limits) as session:
            turn = InTurn(session)
            begun = time.monotonic()
            ended = turn.script(text, timeout=3 * LASTING)
            assert not ended.timed_out and time.monotonic() - begun < LASTING, ended
            if status is not None:
                assert ended.status == status, ended
            assert len(ended.stdout) + len(ended.stderr) <= 2 * limits.output
            for number in (1, 2):
                after = turn.script(f"echo next $1; exit {number}", "word")
                assert (after.status, after.stdout, after.stderr) == (number, b"next word\n", b""), after
        assert left_behind(sandboxes) == []

    def test_a_shell_that_ends_gives_no_success(self, turn: InTurn, monkeypatch: pytest.MonkeyPatch) -> None:
        from pipeline.sandbox import command_shell

        turn.session.end_commands()
        monkeypatch.setattr(command_shell, "SHELL_SCRIPT", "echo ready; read -r token; exit 0")
        turn.begin()
        ended = turn.script("echo never")
        assert ended.status == 137 and not ended.ok

    def test_a_shell_that_never_tells_is_ended_at_the_deadline(
        self, turn: InTurn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline.sandbox import command_shell

        turn.session.end_commands()
        monkeypatch.setattr(command_shell, "SHELL_SCRIPT", "echo ready; read -r token; read -r token")
        turn.begin()
        ended = turn.script("echo never", timeout=1)
        assert ended.timed_out and ended.status != 0 and ended.took < 10

    @pytest.mark.parametrize("driver", ["exit 0", "echo other; sleep 1000"])
    def test_a_shell_that_does_not_start_is_done_without(
        self, turn: InTurn, monkeypatch: pytest.MonkeyPatch, driver: str
    ) -> None:
        from pipeline.sandbox import command_shell

        turn.session.end_commands()
        monkeypatch.setattr(command_shell, "SHELL_SCRIPT", driver)
        turn.begin()
        assert turn.script("echo alone").stdout == b"alone\n"
        assert turn.container() == ""

    def test_an_interrupted_wait_ends_the_container(self, turn: InTurn, monkeypatch: pytest.MonkeyPatch) -> None:
        assert turn.script("true").ok

        def interrupt(*_: object) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(BuildSession, "full", interrupt)
        with pytest.raises(KeyboardInterrupt):
            turn.script("exit 0")
        assert turn.container() == "" and processes_of(turn.session.shift) == []
