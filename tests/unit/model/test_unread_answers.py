"""An answer of which only the beginning was read is right only where the rest cannot make it wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pipeline.model.check_kind import NoAnswer
from pipeline.model.checks import CheckKind, attempt, judge
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.probe import Executed, HttpReply
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_rules import Rule, Rules
from tests.unit.model.test_check_asking import CONFIG, FakeProbe

SAID = b'{"load": 1}'
"""What was read of an answer: JSON, and a text with a line."""


@dataclass
class LongAnswers(FakeProbe):
    """An instance that says more than is read, or (`whole`) no more than that."""

    said: bytes = SAID
    whole: bool = False

    def __post_init__(self) -> None:
        self.log, self.log_dropped = self.said, 0 if self.whole else 1

    def execute(self, argv: Sequence[str], *, stdin: bytes, user: str, deadline: float) -> Executed:
        printed = (self.said, b"") if argv == ("out",) else (b"", self.said)
        dropped = (0 if self.whole else 7) * (argv == ("out",)), (0 if self.whole else 7) * (argv == ("err",))
        return Executed(0, *printed, *dropped)

    def request(self, request: HttpRequest, deadline: float) -> HttpReply:
        return HttpReply(200, (), self.said, self.whole)


def checks(rules: Rules) -> dict[str, Check]:
    """A check of each kind whose answer may be cut, by what the answer is called."""
    return {
        "stdout": Check("c", CheckKind.COMMAND, 1, Expectation(stdout=rules), command=("out",)),
        "stderr": Check("c", CheckKind.COMMAND, 1, Expectation(stderr=rules), command=("err",)),
        "the body": Check("c", CheckKind.HTTP, 1, Expectation(exit_code=None, body=rules), subject=HttpRequest(80)),
        "the log": Check("c", CheckKind.LOG, 1, log=rules),
    }


KINDS = tuple(checks(()))

OPEN = {
    "lacks": Rule(lacks="ERROR"),
    "equals": Rule(equals=SAID.decode()),
    "a bound": Rule(at="$.load", least=1),
    "at a path": Rule(at="$.load", equals="1"),
    "matches and lacks": Rule(matches="load", lacks="ERROR"),
    "not ahead": Rule(matches=r"load(?!ed)"),
    "not anywhere": Rule(matches=r"\A(?![\s\S]*ERROR)"),
    "to its end": Rule(matches=r"1}\Z"),
    "to the end of a line": Rule(matches="1}$"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", OPEN.values(), ids=OPEN)
def test_a_beginning_that_is_right_so_far_is_no_answer(kind: str, rule: Rule) -> None:
    check = checks((rule,))[kind]
    found = attempt(check, LongAnswers(), 0)
    assert isinstance(found.answer, NoAnswer) and found.settled
    assert f"only the first {len(SAID)} bytes of {kind} were read, and the rest may be wrong; " in found.answer.reason
    whole = attempt(check, LongAnswers(whole=True), 0)
    assert not whole.unread and judge(check, whole.answer, CONFIG) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_that_was_found_decides(kind: str) -> None:
    for rules in ((), (Rule(matches="load"),), (Rule(matches="^..load"), Rule(matches="1"))):
        check = checks(rules)[kind]
        assert judge(check, attempt(check, LongAnswers(), 0).answer, CONFIG) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_already_is_told_as_that(kind: str) -> None:
    check = checks((Rule(lacks="load"), Rule(lacks="ERROR")))[kind]
    found = attempt(check, LongAnswers(), 0).answer
    assert not isinstance(found, NoAnswer) and "must not match 'load'" in judge(check, found, CONFIG)


def test_a_stream_of_which_nothing_is_asked_may_be_long() -> None:
    check = Check("c", CheckKind.COMMAND, 1, Expectation(stdout=(Rule(lacks="ERROR"),)), command=("err",))
    assert judge(check, attempt(check, LongAnswers(), 0).answer, CONFIG) == ""


def test_a_log_of_which_no_more_is_kept_is_not_asked_again() -> None:
    for rule in (Rule(lacks="ERROR"), Rule(matches="ready")):
        assert attempt(checks((rule,))["the log"], LongAnswers(), 0).settled
        assert not attempt(checks((rule,))["the log"], LongAnswers(whole=True), 0).settled
