"""What a person's options of `run` mean, and logs as they come."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pipeline.cli.app import CommandContext
from pipeline.cli.commands.run import _refuse_unused
from pipeline.cli.log_follower import Follower
from pipeline.cli.run_options import run_options
from pipeline.errors import RelbuildError, UsageError
from pipeline.model.limits import Limits
from pipeline.progress import QUIET


def environment_of(*env: str, **surroundings: str) -> dict[str, str]:
    order = run_options(1, Limits(), publish=(), volume=(), env=env, config=(), surroundings=surroundings)
    return dict(order.environment)


def test_a_variable_has_the_value_that_is_said_or_that_it_has_here() -> None:
    found = environment_of("SAID=x=y", "EMPTY=", "SECRET", "BLANK", SECRET="p w", BLANK="", OTHER="not asked for")
    assert found == {"SAID": "x=y", "EMPTY": "", "SECRET": "p w", "BLANK": ""}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("MISSING", "variable-missing"),
        *((text, "option-malformed") for text in ("=x", "A B=c", "A B", " A=c", "A\n=c", "A\x1b=c", "A\u00a0=c")),
    ],
)
def test_a_variable_that_is_not_set_is_an_error_and_not_an_empty_one(text: str, code: str) -> None:
    with pytest.raises(RelbuildError) as raised:
        environment_of(text)
    assert raised.value.code == code


def test_a_variable_may_have_any_other_name_and_its_value_is_in_no_error() -> None:
    assert environment_of("a.b-c/d=x y", "É=é") == {"a.b-c/d": "x y", "É": "é"}
    with pytest.raises(UsageError) as raised:
        environment_of("PASS WORD=secret")
    assert "PASS WORD" in str(raised.value) and "secret" not in str(raised.value)


def test_many_lines_are_written_each_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    follower = Follower()
    follower("a-1", b"one\ntwo\r\nthr")
    follower("a-2", b"\x1b[2Jother\n")
    follower("a-1", b"ee\n")
    follower.close()
    assert capsys.readouterr().out.splitlines() == ["a-1 | one", "a-1 | two", "a-2 | \\x1b[2Jother", "a-1 | three"]


def test_a_line_without_an_end_is_broken_and_what_is_left_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    follower = Follower()
    for _ in range(3):
        follower("a", b"x" * (Follower.LONGEST - 1))
    follower("a", b"end")
    follower.close()
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 2 * Follower.LONGEST + 4 for line in lines)
    assert "".join(line.removeprefix("a | ") for line in lines) == "x" * 3 * (Follower.LONGEST - 1) + "end"


@pytest.mark.parametrize(
    ("subject", "variables", "named"),
    [
        ("redis", {}, "--key"),
        ("dir:/mirror/redis:8", {}, "--platform"),
        ("redis", {"RELBUILD_KEY": "k"}, None),
        ("dir:/mirror/redis:8", {"RELBUILD_PLATFORM": "el-9"}, None),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    subject: str, variables: dict[str, str], named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `--key` would promise that a recipe's image was verified."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    given: Any = {"for_references": {"--key": "k", "--as": ""}, "for_recipes": {"--platform": "el-9"}}
    expected: Any = pytest.raises(RelbuildError) if named else contextlib.nullcontext()
    with expected as raised:
        _refuse_unused(CommandContext(QUIET), subject, **given)
    if raised is not None:
        assert raised.value.code == "option-unused" and named in str(raised.value)
