"""Input of commands one after the other in one container: read as in a container of its own."""

from __future__ import annotations

import time

import pytest

from pipeline.sandbox import command_input
from pipeline.sandbox.shell_script import SHELL_SCRIPT
from tests.support.commands_in_turn import PROBE, InTurn, comparable, root, turn

pytestmark = pytest.mark.brief

__all__ = ["root", "turn"]  # fixtures

WITH_INPUT = (
    "cat",
    "read -r first; echo $first; cat /dev/stdin",
    "cat >/dev/null; cat /dev/stdin; read -r word || echo end",
    'while read -r line; do echo "$line"; done',
    "read -r line; exit 5",
    "exit 6",
    "exec <&-; sleep 0.1; exit 7",
    "cat | cat; echo $?",
    "(read -r one; echo $one); read -r two; echo $two",
    "[ -p /dev/stdin ] && echo pipe; [ -s /dev/stdin ] || echo empty; cat >/dev/null",
    "cat >/dev/null; echo more >/dev/stdin; read -r line </dev/stdin; echo $line",
    "dd bs=1 skip=1 count=3 2>/dev/null; cat",
)
"""Scripts that read what they are given in some way."""


def test_standard_input_is_at_its_end_and_stays_there(turn: InTurn) -> None:
    first = turn.container()
    look = "cat; echo more >/dev/stdin; cat /dev/stdin; cat; read -r word || echo end"
    for _ in range(2):
        assert turn.script(look).stdout == b"end\n"
    assert turn.container() == first != ""


def test_a_script_with_input_sees_the_same_process_in_either_way(turn: InTurn) -> None:
    first = turn.container()
    text = PROBE + "ls -l /proc/self/fd/0 | sed 's/.* -> //; s/[0-9].*//'\n"
    in_turn = [comparable(turn.script(text, "x", stdin=b"a\nb\n")) for _ in range(2)]
    assert turn.container() == first != "", "it was not run in turn"
    turn.session.end_commands()
    alone = comparable(turn.script(text, "x", stdin=b"a\nb\n"))
    assert in_turn[0] == in_turn[1] == alone
    assert "a\nb\n=child" in alone[1]


@pytest.mark.parametrize("text", WITH_INPUT)
@pytest.mark.parametrize("size", [1, 1500, 9000])
def test_input_is_read_as_in_a_container_of_its_own(turn: InTurn, text: str, size: int) -> None:
    first = turn.container()
    fed = b"".join(b"/usr/lib/f%d\xff\0 'x'\n" % number for number in range(size))
    in_turn = [turn.script(text, stdin=fed) for _ in range(2)]
    assert turn.container() == first != "", "it was not run in turn"
    assert turn.script("cat").stdout == b""
    turn.session.end_commands()
    alone = turn.script(text, stdin=fed)
    for ended in in_turn:
        assert (ended.status, ended.stdout, ended.stderr) == (alone.status, alone.stdout, alone.stderr)


def test_a_script_that_asks_whether_there_is_input_is_told_so_each_time(turn: InTurn) -> None:
    ask = "read -t 0 && echo yes || echo no"  # dash has no such option.
    first = turn.container()
    in_turn = {comparable(turn.script(ask, stdin=b"hello\n"))[:2] for _ in range(25)}
    assert turn.container() == first != ""
    turn.session.end_commands()
    assert in_turn == {comparable(turn.script(ask, stdin=b"hello\n"))[:2]}


def test_no_other_process_is_seen_by_a_script_with_input(turn: InTurn) -> None:
    first = turn.container()
    look = "kill -0 -1 2>/dev/null; for one in /proc/[0-9]*; do echo $one; done"
    assert turn.script(look, stdin=b"x").stdout.count(b"/proc/") == 2
    assert turn.container() == first != ""


def test_a_script_that_waits_for_input_for_ever_is_ended(turn: InTurn) -> None:
    ended = turn.script("cat >/dev/null; sleep 60", stdin=b"x" * (1 << 20), timeout=1.0)
    assert ended.timed_out and not ended.ok
    ended = turn.script("sleep 60", stdin=b"x" * (1 << 20), timeout=1.0)
    assert ended.timed_out and not ended.ok
    assert turn.script("cat", stdin=b"next").stdout == b"next"


def test_who_holds_the_input_after_its_script_is_ended_with_the_container(turn: InTurn) -> None:
    first = turn.container()
    begun = time.monotonic()
    assert turn.script("{ cat; sleep 60; } <&0 >/dev/null & exit 3", stdin=b"x" * (1 << 20)).status == 3
    assert turn.script("cat /tmp/* 2>/dev/null; cat", stdin=b"y").stdout == b"y"
    assert turn.container() not in ("", first) and time.monotonic() - begun < 20


def test_input_that_cannot_be_a_pipe_of_the_shells_leads_to_a_container_of_its_own(
    turn: InTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(seen: int) -> int:
        raise PermissionError

    monkeypatch.setattr(command_input, "_open_pipe", refused)
    assert turn.script("cat; echo >>/tmp/began; cat /tmp/began", stdin=b"x").stdout == b"x\n"
    first = turn.container()
    assert turn.script("cat; echo >>/tmp/began; cat /tmp/began", stdin=b"x").stdout == b"x\n\n"
    assert turn.container() == first


def test_a_machine_that_stands_still_meanwhile_is_waited_for(turn: InTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        real_sleep(seconds if len(looks) > 1 else 1.5)

    real_sleep, real_look, calls = time.sleep, command_input._only_child, []

    def look(*given: object) -> int | None:
        calls.append(given)
        return real_look(*given) if len(calls) > 1 else None  # type: ignore[arg-type]

    first = turn.container()
    monkeypatch.setattr(command_input, "_only_child", look)
    monkeypatch.setattr(command_input.time, "sleep", sleep)
    assert turn.script("cat", stdin=b"x").stdout == b"x"
    assert looks and turn.container() == first != ""


def test_a_shell_that_gives_no_pipe_is_asked_once_and_not_long(turn: InTurn, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sandbox import command_shell

    real, looks = command_input._only_child, []
    monkeypatch.setattr(command_input, "_only_child", lambda *given: looks.append(given) or real(*given))
    turn.session.end_commands()
    changed = SHELL_SCRIPT.replace(": | (", "(")
    assert changed != SHELL_SCRIPT
    monkeypatch.setattr(command_shell, "SHELL_SCRIPT", changed)
    turn.begin()
    assert turn.script("cat; echo >>/tmp/began; cat /tmp/began", stdin=b"x").stdout == b"x\n"
    assert 0 < len(looks) < 100
    looks.clear()
    assert turn.script("cat; echo >>/tmp/began; cat /tmp/began", stdin=b"x").stdout == b"x\n\n"
    assert not looks
