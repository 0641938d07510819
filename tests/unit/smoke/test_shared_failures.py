"""Failures of a smoke test: told once for all instances, with the log's line that explains and the recipe's line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.model.checks import CheckKind
from pipeline.model.plan_form import plan_digest, plan_value
from pipeline.model.published_image import PublishedImage
from pipeline.model.report import CheckResult, InstanceReport, SmokeReport
from pipeline.model.smoke import Check, RenderedText, SmokePlan
from pipeline.recipes import load_recipe
from pipeline.smoke import failures_json, junit_report, report_json, report_lines
from pipeline.smoke.instance_probe import describe_log
from pipeline.smoke.log_lines import explaining_line, failure_mark, log_excerpt, shorten_log, with_marks
from pipeline.smoke.shared_failures import instances_text, shared_failures

ANSWERS = Check(
    "answers",
    CheckKind("command"),
    5000,
    command=("mysql", "-P", "3306"),
    place="mysql.yaml:41: smoke.checks[0]",
    from_templates=(RenderedText("command[2]", "{{ values.port }}", "3306"),),
)
PLAN = SmokePlan(checks=(ANSWERS, Check("holds", CheckKind("command"), 5000)), instances=3)


def instance(name: str, *details: str, log: str = "", happened: str = "") -> InstanceReport:
    checks = tuple(
        CheckResult(check.name, not detail, 10, detail) for check, detail in zip(PLAN.checks, details, strict=True)
    )
    return InstanceReport(name, checks, (), None, None, None, None, None, None, None, log=log, happened=happened)


def report(*instances: InstanceReport) -> SmokeReport:
    return SmokeReport(Digest.of(b"i"), plan_digest(PLAN), "runc 1", instances, 0, 5, asked=PLAN)


REFUSED = "exit code 1, not 0: cannot connect to {} (after {} s)"
SHARED = report(
    instance("mysql-1", REFUSED.format("mysql-1", 3), "skipped: it was stopped", log="boot\n[ERROR] no space\nbye\n"),
    instance("mysql-2", REFUSED.format("mysql-2", 14), "skipped: it was stopped", log="boot\n[ERROR] no space\nbye\n"),
    instance("mysql-read-only", "exit code 2, not 0", "skipped: it was stopped"),
)


def test_a_failure_that_instances_share_is_told_once_and_what_it_skipped_not_at_all() -> None:
    first, second = shared_failures(SHARED)
    assert (first.check, first.instances) == ("answers", ("mysql-1", "mysql-2"))
    assert first.sentence == "answers: exit code 1, not 0: cannot connect to mysql-1 (after 3 s)"
    assert (second.instances, second.reason) == (("mysql-read-only",), "exit code 2, not 0")
    assert instances_text(first, SHARED) == "mysql-1, mysql-2"
    everywhere = report(*(instance(f"mysql-{number}", "same", "skipped: x") for number in range(3)))
    (only,) = shared_failures(everywhere)
    assert instances_text(only, everywhere) == "all 3 instances"


def test_what_ended_an_instance_comes_first_and_problems_of_the_whole_are_kept() -> None:
    killed = report(
        *(instance(f"m-{number}", "no answer", "skipped: x", happened="killed: out of memory") for number in (1, 2))
    )
    killed = replace(killed, failure="m-1: killed: out of memory | m-2: killed: out of memory")
    assert [(one.check, one.sentence) for one in shared_failures(killed)] == [
        ("", "killed: out of memory"),
        ("answers", "answers: no answer"),
        ("", "2 instances were launched instead of 3"),
    ]
    assert shared_failures(replace(killed, instances=(), failure="nothing"))[0].sentence == "nothing"


def test_a_failed_check_names_its_line_and_what_its_template_rendered_to_everywhere() -> None:
    where, rendered = ANSWERS.place, "command[2]: '{{ values.port }}' rendered to '3306'"
    lines = report_lines(SHARED)
    assert f"      at {where}" in lines and f"      {rendered}" in lines
    assert [line for line in lines if "as for mysql-1" in line] == ["      as for mysql-1"]
    assert lines.count("  ✗ 1 check skipped: it was stopped") == 3 and not [one for one in lines if "holds" in one]
    case = next(
        one
        for one in ElementTree.fromstring(junit_report(SHARED, "mysql")).iter("testcase")
        if one.find("failure") is not None
    )
    assert f"at {where}\n{rendered}" in (case.findtext("failure") or "")
    told = failures_json(SHARED)[0]
    assert told["place"] == where and told["instances"] == ["mysql-1", "mysql-2"]
    assert told["from_templates"] == [{"key": "command[2]", "template": "{{ values.port }}", "rendered": "3306"}]
    figure = PublishedImage().with_test(SHARED).checks[0]
    assert (figure.place, figure.rendered) == (where, (rendered,))


def test_neither_place_nor_templates_are_part_of_the_plan_or_the_report() -> None:
    bare = replace(PLAN, checks=(replace(ANSWERS, place="", from_templates=()), PLAN.checks[1]))
    assert plan_digest(bare) == plan_digest(PLAN) and plan_value(bare) == plan_value(PLAN)
    assert report_json(replace(SHARED, asked=bare)) == report_json(SHARED)


def test_a_recipe_keeps_what_its_checks_templates_rendered_to(tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(
        "name: it\nversion: '1'\nimage: {entrypoint: [/bin/sh]}\nplatform: local\n"
        "layers: [{name: base, packages: [bash]}]\n"
        "values: {port: 3306}\n"
        "smoke:\n  ready: {port: '{{ values.port }}', within: 5s}\n"
        "  checks:\n"
        "    - {name: answers, command: [echo, 'on {{ values.port }}'], expect: {stdout: '{{ values.port }}'}}\n"
        "    - {name: plain, command: ['true']}\n"
    )
    plan = load_recipe(path).smoke
    assert plan.ready is not None
    assert [one.sentence for one in plan.ready.from_templates] == ["port: '{{ values.port }}' rendered to '3306'"]
    answers, plain = plan.checks
    assert [(one.key, one.rendered) for one in answers.from_templates] == [
        ("expect.stdout", "3306"), ("command[1]", "on 3306"),
    ]  # fmt: skip
    assert answers.place.startswith("it.yaml:10: ") and plain.from_templates == ()


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (
            "starting\n[Warning] option failed\n[ERROR] [MY-010] Can't open\nError: later\nbye",
            "[ERROR] [MY-010] Can't open",
        ),
        ("LOG:  starting\nFATAL:  could not open file\nLOG:  shut down", "FATAL:  could not open file"),
        ("nginx: [emerg] bind() to 0.0.0.0:80 failed", "nginx: [emerg] bind() to 0.0.0.0:80 failed"),
        ("# Fatal error, can't open config file\nexit", "# Fatal error, can't open config file"),
        ("ok\nTraceback (most recent call last):\n  File x\n    y\nValueError: no port\nmore", "ValueError: no port"),
        ("chmod: permission denied\nlast words", "chmod: permission denied"),
        ("[relbuild: check 'a' failed 3 s after the start: x]\nunable to lock", "unable to lock"),
        ("0 errors\nlog_error = /var/log/error.log\nready", None),
        ("", None),
    ],
)
def test_the_first_line_that_explains_is_the_first_with_a_severity_else_with_a_telling_word(
    log: str, found: str | None
) -> None:
    lines = log.splitlines()
    number = explaining_line(lines)
    assert (None if number is None else lines[number]) == found


def test_an_end_tells_the_line_that_explains_it_and_else_the_last_lines_whole() -> None:
    assert describe_log(b"warming up\n# Fatal error, no such file\nbye") == "the log says: # Fatal error, no such file"
    assert describe_log(b"one\ntwo\n") == "last log lines: one\ntwo" and describe_log(b"") == "last log lines: none"
    cut = describe_log("\n".join(f"line {number}" for number in range(3000)).encode()).removeprefix("last log lines: ")
    assert cut.endswith("line 2999") and all(line.startswith("line ") for line in cut.split("\n"))


def test_an_excerpt_has_the_lines_around_the_cause_and_the_last_ones() -> None:
    lines = [str(number) for number in range(100)]
    assert log_excerpt(lines, None, 3) == ("[relbuild: 97 lines omitted]", "97", "98", "99")
    assert log_excerpt(lines, 50, 8) == (
        "[relbuild: 47 lines omitted]", "47", "48", "49", "50", "[relbuild: 45 lines omitted]", "96", "97", "98", "99",
    )  # fmt: skip
    assert log_excerpt(lines, 98, 8)[-5:] == ("95", "96", "97", "98", "99")
    assert log_excerpt(lines[:5], 2, 8) == tuple(lines[:5])


def test_a_mark_stands_where_the_next_line_begins() -> None:
    mark = failure_mark("answers", "refused\nmore", asked=1000, failed=4200)
    assert mark == "[relbuild: check 'answers' failed 4.2 s after the start, asked since 1.0 s: refused]"
    log = b"one\ntwo\nthree"
    for offset, expected in [
        (0, b"M\none\ntwo\nthree"),
        (4, b"one\nM\ntwo\nthree"),
        (5, b"one\ntwo\nM\nthree"),
        (13, b"one\ntwo\nthree\nM\n"),
    ]:
        assert with_marks(log, [(offset, "M")]) == expected
    assert with_marks(log, [(4, "M"), (4, "N")]) == b"one\nM\nN\ntwo\nthree"
    assert with_marks(b"", [(0, "M")]) == b"M\n"


@given(st.lists(st.text("ab ", max_size=30), max_size=30), st.integers(8, 200))
def test_a_long_log_is_cut_at_line_ends(lines: list[str], limit: int) -> None:
    log = "".join(f"{line}\n" for line in lines)
    short = shorten_log(log, limit)
    if len(log) <= limit:
        assert short == log
        return
    head, note, tail = short.partition("[relbuild: ")
    omitted, _, tail = tail.partition(" characters omitted]\n")
    assert note and head.endswith("\n") and log.endswith(tail)
    if all(len(line) < limit // 4 for line in lines):
        assert log.startswith(head) and f"\n{log}".endswith(f"\n{tail}")
        assert len(head) + int(omitted) + len(tail) == len(log)
