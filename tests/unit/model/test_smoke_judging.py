"""What is recorded of an answer is judged as the answer was, whoever reads it again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest, canonical_json
from pipeline.model.checks import (
    CheckAnswer,
    CheckKind,
    MountsAnswer,
    NoAnswer,
    judge,
    judge_mounts,
    record_answer,
)
from pipeline.model.checks.log_check import LogAnswer
from pipeline.model.checks.process_check import ProcessAnswer, ProcessFacts, SeenProcess
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.image import ImageConfig
from pipeline.model.json_form import from_json, to_json
from pipeline.model.plan_form import plan_digest, plan_value, read_plan
from pipeline.model.report import CheckResult, InstanceReport, NeighbourFigures, SmokeReport
from pipeline.model.report_form import read_report, report_json
from pipeline.model.report_verdict import judge_neighbours
from pipeline.model.smoke import Check, Expectation, Neighbours, SmokePlan
from pipeline.model.smoke_questions import expected_questions
from pipeline.model.value_comparison import (
    EXCERPT_LIMIT,
    TEXT_LIMIT,
    Excerpt,
    RecordedText,
    mismatch,
    record_text,
    recorded_mismatch,
)
from pipeline.model.value_rules import Rule
from tests.support.check_answers import ANSWERS, CHECKS, RULES
from tests.support.examples import FAST, examples
from tests.support.tested_images import (
    PLAN,
    config,
    image,
    report,
)

CONFIG = replace(config(), user="app")
READY = Check("ready", CheckKind.PORT, 1000, Expectation(stdout=(Rule(matches="ok"),)), port=80)
QUIET = settings(
    max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def through_json(value: CheckAnswer) -> CheckAnswer:
    """The answer as a report brings it back."""
    result = CheckResult("c", True, 1, "", value)
    written = json.loads(json.dumps(to_json(result)))
    return from_json(CheckResult, written).answer


@pytest.mark.parametrize("kind", CheckKind)
def test_an_answer_judges_the_same_recorded_written_and_read_again(kind: CheckKind) -> None:
    seen = set()

    @QUIET
    @given(CHECKS[kind], ANSWERS[kind])
    def hold(check: Check, answer: CheckAnswer) -> None:
        fresh = judge(check, answer, CONFIG, READY)
        kept = record_answer(check, answer)
        again = through_json(kept)
        assert again == kept
        assert bool(judge(check, again, CONFIG, READY)) is bool(fresh)
        assert judge(check, again, CONFIG, READY) == judge(check, kept, CONFIG, READY)
        seen.add(bool(fresh))

    hold()
    assert seen == {True, False} or FAST, "both right and wrong answers are tried"


@pytest.mark.parametrize("kind", CheckKind)
def test_an_answer_of_another_kind_is_never_right(kind: CheckKind) -> None:
    @QUIET
    @given(CHECKS[kind], st.one_of(*(answers for answers in ANSWERS.values() if answers is not ANSWERS[kind])))
    def hold(check: Check, answer: CheckAnswer) -> None:
        assert judge(check, answer, CONFIG, READY)

    hold()


def test_no_answer_is_never_right() -> None:
    for kind in CheckKind:
        check = Check("c", kind, 1)
        assert judge(check, NoAnswer(""), CONFIG) and judge(check, NoAnswer("gone"), CONFIG) == "gone"
    assert judge_mounts(NoAnswer(""), CONFIG) and judge_mounts(StopAnswer("SIGTERM", 0), CONFIG)


def test_mounts() -> None:
    assert judge_mounts(MountsAnswer(("/data", "/tmp", "/run/lock", "/dev/shm")), CONFIG) == ""
    assert judge_mounts(MountsAnswer(("/data2", "/var")), CONFIG) == "writable: /data2, /var"


class TestLongTexts:
    @QUIET
    @given(RULES, st.sampled_from(["ok", "ERROR", "xok", '{"a": [1, "ok"], "b": 7}']), st.booleans())
    def test_an_excerpt_decides_as_the_whole_did(self, rules: tuple[Rule, ...], word: str, first: bool) -> None:
        filling = "a line\n" * TEXT_LIMIT
        text = f"{word}\n{filling}" if first else f"{filling}{word}"
        kept = record_text(rules, RecordedText.of(text))
        assert bool(recorded_mismatch(rules, kept, "it")) is bool(mismatch(rules, text, "it"))
        assert kept.size == len(text) and kept.digest == Digest.of(text.encode())
        if kept.excerpts is not None:
            assert len(kept.text) + sum(len(excerpt.text) for excerpt in kept.excerpts) <= 2 * EXCERPT_LIMIT + 2000

    def test_what_is_found_is_shown_with_its_line(self) -> None:
        text = "filling\n" * TEXT_LIMIT + "now ready for connections\n" + "filling\n" * TEXT_LIMIT
        kept = record_text((Rule(matches="ready for"),), RecordedText.of(text))
        assert kept.excerpts == (Excerpt("now ready for connections"),)

    def test_a_value_in_a_long_document_is_kept_alone(self) -> None:
        text = json.dumps({"filling": "x" * TEXT_LIMIT, "status": "green\ud800"})
        kept = record_text((Rule(at="$.status", matches="^green"),), RecordedText.of(text))
        assert kept.excerpts is not None and kept.excerpts[0].text.startswith("green\ufffd")
        assert canonical_json(to_json(kept))

    def test_what_no_excerpt_shows_is_kept_whole(self) -> None:
        text = "a" + "x" * TEXT_LIMIT + "b"
        rule = Rule(matches="^ax+b$")
        assert record_text((rule,), RecordedText.of(text)) == RecordedText.of(text)

    def test_and_beyond_all_bounds_it_is_not_right(self) -> None:
        text = "a" + "x" * (2 << 20) + "b"
        kept = record_text((Rule(matches="^ax+b$"),), RecordedText.of(text))
        assert len(kept.text) <= 2000
        assert "no part of it" in recorded_mismatch((Rule(matches="^ax+b$"),), kept, "it")

    def test_an_excerpt_for_other_rules_is_refused(self) -> None:
        kept = record_text((Rule(matches="x"),), RecordedText.of("x" * 2 * TEXT_LIMIT))
        assert recorded_mismatch((Rule(matches="x"), Rule(matches="y")), kept, "it")
        assert recorded_mismatch((Rule(matches="y"),), kept, "it")

    def test_the_command_line_of_a_process(self) -> None:
        check = Check("c", CheckKind.PROCESS, 1, subject=ProcessFacts(command="--port=80"))
        answer = ProcessAnswer(None, (SeenProcess("a", "a", RecordedText.of("a " * TEXT_LIMIT + "--port=80"), 0),))
        kept = record_answer(check, answer)
        assert judge(check, kept, CONFIG) == judge(check, answer, CONFIG) == ""
        assert len(json.dumps(to_json(kept))) < 10_000

    def test_control_characters_stay_exact(self) -> None:
        answer = LogAnswer(RecordedText.of(b"\x1b[31mred\x00\r\n\xff"))
        again = through_json(answer)
        assert again == answer
        assert isinstance(again, LogAnswer) and again.log.text == "\x1b[31mred\x00\r\n\ufffd"


class TestPlans:
    @QUIET
    @given(st.tuples(*CHECKS.values()))
    def test_a_plan_reads_back_as_an_equal_one(self, checks: tuple[Check, ...]) -> None:
        plan = replace(PLAN, checks=checks, neighbours=Neighbours(factor=2))
        again = read_plan(json.loads(json.dumps(plan_value(plan))))
        assert again == plan and plan_digest(again) == plan_digest(plan)

    def test_where_it_stands_is_left_out(self) -> None:
        placed = replace(PLAN, ready=replace(READY, place="a.yaml:1"))
        assert "a.yaml" not in json.dumps(plan_value(placed))
        assert plan_digest(placed) == plan_digest(replace(PLAN, ready=READY))

    def test_an_upgrade_is_judged_by_the_old_image_up_to_the_restart(self) -> None:
        older = ImageConfig("amd64", 0, exposed_ports=("1/tcp",))
        asked = expected_questions(PLAN, CONFIG, older=older)
        assert [(question.name, question.config is older) for question in asked] == [
            ("ready", True),
            ("page", True),
            ("who", True),
            ("listens", True),
            ("restarts", False),
            ("log", False),
            ("stops", False),
        ]
        assert [question.name for question in expected_questions(SmokePlan(READY), CONFIG, older=older)] == [
            "ready",
            "becomes the new image",
        ]


class TestNeighbours:
    WANTED = Neighbours(3, factor=2.0, floor=1000)
    GOOD = NeighbourFigures("spin", True, 9, 0, 1000, 2000, 2000, 4000, "used 1 s", quiet_asked=9)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({}, ""),
            ({"p50": 2001}, "median"),
            ({"p99": 4001}, "99th percentile"),
            ({"quiet_p50": 1, "p50": 2000}, ""),
            ({"failed": 1}, "missing or wrong"),
            ({"quiet_failed": 1}, "before the misbehaviour"),
            ({"effect": ""}, "no effect"),
            ({"asked": 1}, "not all"),
            ({"quiet_asked": 0}, "not all"),
        ],
    )
    def test_figures_are_judged_again(self, change: dict[str, object], said: str) -> None:
        wrong = judge_neighbours(replace(self.GOOD, **change), self.WANTED)  # type: ignore[arg-type]
        assert bool(wrong) is bool(said) and said in wrong


class TestReports:
    def test_a_passing_one_passes_when_it_is_read_again(self) -> None:
        whole = report(image())
        again = read_report(json.loads(json.dumps(report_json(whole))))
        assert again == whole and again.passed and not again.problems

    def test_a_flipped_verdict_changes_nothing(self) -> None:
        whole = report(image())
        one = whole.instances[0]
        wrong = replace(one.checks[1], answer=StopAnswer("SIGTERM", 0))
        value = report_json(
            replace(whole, instances=(replace(one, checks=(one.checks[0], wrong)), *whole.instances[1:]))
        )
        assert not read_report({**value, "passed": True}).passed


def test_types_that_do_not_fit_are_refused() -> None:
    value = to_json(report(image()))
    assert isinstance(value, dict)
    changes: tuple[dict[str, object], ...] = (
        {"took": True},
        {"took": 1.0},
        {"more": 1},
        {"older": {}},
        {"asked": {**value["asked"], "ready": {"type": "Check"}}},
        {"asked": {**value["asked"], "variants": ["sideways"]}},
        {"config": {**value["config"], "labels": [["a"]]}},
        {"image": "sha256:0"},
    )
    for change in changes:
        with pytest.raises(ValueError, match=r"\$"):
            from_json(SmokeReport, {**value, **change})
    neighbours = to_json(replace(PLAN, neighbours=Neighbours()))
    assert isinstance(neighbours, dict)
    for text in ("10", "1e1", "nan", " 10.0"):
        with pytest.raises(ValueError, match="factor"):
            from_json(SmokePlan, {**neighbours, "neighbours": {**neighbours["neighbours"], "factor": text}})
    assert from_json(InstanceReport, to_json(report(image()).instances[0])) == report(image()).instances[0]
