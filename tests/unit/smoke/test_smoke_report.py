"""Smoke reports as JSON, JUnit and lines."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.model.checks import CheckKind
from pipeline.model.checks.stop_check import StopAnswer
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.report import CheckResult, InstanceReport, LoopbackPort, NeighbourFigures, SmokeReport
from pipeline.model.smoke import Check, Expectation, Neighbours, SmokePlan, Variant
from pipeline.model.value_rules import Rule
from pipeline.smoke import (
    junit_report,
    plan_digest,
    read_report,
    report_json,
    report_lines,
)
from tests.support.examples import examples

TEXT = st.text(max_size=60)
NUMBER = st.integers(0, 10**12)
MAYBE = st.none() | NUMBER
DIGESTS = st.binary(max_size=8).map(Digest.of)
CHECKS = st.builds(CheckResult, TEXT, st.booleans(), NUMBER, TEXT)
PORTS = st.builds(LoopbackPort, NUMBER, st.lists(TEXT, max_size=2).map(tuple), NUMBER)
LIMITS = st.builds(LimitReading, TEXT, NUMBER, MAYBE, st.booleans(), TEXT)
INSTANCES = st.builds(
    InstanceReport,
    TEXT,
    st.lists(CHECKS, max_size=3).map(tuple),
    st.lists(LIMITS, max_size=3).map(tuple),
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
    MAYBE,
    TEXT,
    TEXT,
    TEXT,
    st.dictionaries(TEXT, NUMBER, max_size=3).map(lambda value: tuple(sorted(value.items()))),
    loopback_ports=st.none() | st.lists(PORTS, max_size=2).map(tuple),
)
FIGURES = st.builds(
    NeighbourFigures, TEXT, st.booleans(), NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, TEXT, st.text(min_size=1)
)
REPORTS = st.builds(
    SmokeReport,
    DIGESTS,
    DIGESTS,
    TEXT,
    st.lists(INSTANCES, max_size=3).map(tuple),
    st.integers(0, 2**33),
    NUMBER,
    TEXT,
    st.lists(FIGURES, max_size=2).map(tuple),
)

INSTANCE = InstanceReport(
    "tiny-1",
    (
        CheckResult("ready", True, 250),
        CheckResult("answers", False, 1500, "exit code 1\nstderr: <no> & \x1b[31m"),
    ),
    (
        LimitReading("memory", 100, 100, True),
        LimitReading("bandwidth", 5, None, False, "not yet"),
    ),
    300,
    0,
    10 << 20,
    1_500_000,
    0,
    None,
    2,
    "log\x00 \ud800 ]]> end",
)
REPORT = SmokeReport(Digest.of(b"i"), Digest.of(b"p"), "runc 1", (INSTANCE,), 1_700_000_000, 2000)


class TestJson:
    @settings(max_examples=examples(25), deadline=None)
    @given(REPORTS)
    def test_a_report_reads_back_as_the_same(self, report: SmokeReport) -> None:
        assert read_report(json.loads(json.dumps(report_json(report)))) == report

    def test_a_verdict_that_was_edited_is_not_believed(self) -> None:
        value = report_json(REPORT)
        assert value["passed"] is False
        assert not read_report({**value, "passed": True}).passed

    @pytest.mark.parametrize(
        "change",
        [
            {"schema": 99},
            {"image": "x"},
            {"instances": None},
            {"instances": [None]},
            {"instances": [{}]},
            {"started": "now"},
            {"took": 1.5},
            {"failure": None},
        ],
    )
    def test_another_form_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(VerificationError):
            read_report({**report_json(REPORT), **change})

    def test_nothing_missing_is_guessed(self) -> None:
        whole = report_json(REPORT)
        for key in whole:
            if key not in ("passed", "emulator"):
                with pytest.raises(VerificationError):
                    read_report({name: value for name, value in whole.items() if name != key})

    def test_a_report_from_before_emulators_were_named_had_none(self) -> None:
        older = {name: value for name, value in report_json(REPORT).items() if name != "emulator"}
        assert read_report(older) == REPORT and read_report(older).execution == "runc 1"

    def test_it_says_by_what_an_image_was_emulated(self) -> None:
        emulated = replace(REPORT, emulator="qemu-aarch64 7.2.22")
        assert read_report(report_json(emulated)) == emulated
        assert report_lines(emulated)[-1].endswith("under runc 1, emulated by qemu-aarch64 7.2.22")
        assert b'name="emulator" value="qemu-aarch64 7.2.22"' in junit_report(emulated, "x")


class TestPlanDigest:
    CHECK = Check("c", CheckKind.COMMAND, 1000, command=("true",), place="a.yaml:1")
    PLAN = SmokePlan(CHECK, (CHECK,), Limits(), 1)

    def test_where_it_is_asked_does_not_matter(self) -> None:
        moved = replace(self.CHECK, place="b.yaml:7")
        assert plan_digest(SmokePlan(moved, (moved,), Limits(), 1)) == plan_digest(self.PLAN)

    @pytest.mark.parametrize(
        "change",
        [
            {"instances": 2},
            {"limits": Limits(pids=5)},
            {"neighbours": Neighbours()},
            {"variants": (Variant.READ_ONLY,)},
            {"upgrade_from": "old"},
            {"checks": (replace(CHECK, expect=Expectation(stdout=(Rule(least=1.5),))),)},
            {"ready": None},
            {"checks": ()},
            {"checks": (replace(CHECK, within=2000),)},
            {"checks": (replace(CHECK, command=("false",)),)},
        ],
    )
    def test_what_is_asked_does(self, change: dict[str, object]) -> None:
        assert plan_digest(replace(self.PLAN, **change)) != plan_digest(self.PLAN)  # type: ignore[arg-type]


class TestJunit:
    def test_a_case_per_check_and_the_limits_as_properties(self) -> None:
        document = ElementTree.fromstring(junit_report(REPORT, "tiny"))
        assert document.attrib == {
            "name": "tiny",
            "tests": "2",
            "failures": "1",
            "errors": "0",
            "time": "2.0",
        }
        (suite,) = document.findall("testsuite")
        assert suite.attrib["timestamp"] == "2023-11-14T22:13:20"
        cases = suite.findall("testcase")
        assert [(case.attrib["name"], case.attrib["classname"]) for case in cases] == [
            ("ready", "tiny.tiny-1"),
            ("answers", "tiny.tiny-1"),
        ]
        failure = cases[1].find("failure")
        assert failure is not None
        assert failure.attrib["message"] == "exit code 1"
        assert failure.text == "exit code 1\nstderr: <no> & \\x1b[31m"
        facts = {found.attrib["name"]: found.attrib["value"] for found in suite.iter("property")}
        assert facts["limit.memory"] == "asked 100, read 100, enforced"
        assert facts["limit.bandwidth"] == "asked 5, read nothing, NOT ENFORCED: not yet"
        assert facts["image"] == str(REPORT.image)
        assert suite.findtext("system-out") == "log\\x00 \\ud800 ]]> end"

    @settings(max_examples=examples(25), deadline=None)
    @given(REPORTS, TEXT)
    def test_whatever_was_printed_it_is_xml_with_the_right_counts(self, report: SmokeReport, name: str) -> None:
        document = ElementTree.fromstring(junit_report(report, name))
        cases = list(document.iter("testcase"))
        failures = list(document.iter("failure"))
        assert len(cases) == int(document.attrib["tests"])
        assert len(failures) == int(document.attrib["failures"])
        assert bool(failures) is not report.passed

    def test_a_run_that_failed_as_a_whole_has_a_case_of_its_own(self) -> None:
        document = ElementTree.fromstring(
            junit_report(replace(REPORT, instances=(), failure="nothing was asked"), "tiny")
        )
        assert (document.attrib["tests"], document.attrib["failures"]) == ("1", "1")
        assert document.findtext("testsuite/testcase/failure") == "nothing was asked"


class TestLines:
    def test_people_see_answers_limits_that_do_not_hold_and_the_verdict(self) -> None:
        assert report_lines(REPORT) == (
            "tiny-1, ready after 300 ms (10.0 MiB, 1.50 s of CPU, 2 OOM kills)",
            "  ✓ ready (250 ms)",
            "  ✗ answers (1.5 s)",
            "      exit code 1",
            "      stderr: <no> & \\x1b[31m",
            "  ! limit bandwidth is not enforced: not yet",
            "DID NOT PASS in 2.0 s under runc 1",
        )

    def test_what_neighbours_noticed_and_what_became_of_an_instance_are_told(self) -> None:
        figures = NeighbourFigures("spin", False, 100, 1, 900, 2000, 1000, 90_000, "used 1.0 s", "too slow")
        instance = replace(INSTANCE, role="read-only", happened="/data is full (bytes)", measured=(("io_read", 5),))
        report = replace(REPORT, instances=(instance,), neighbours=(figures,))
        lines = report_lines(report)
        assert lines[0].startswith("tiny-1, read-only, ready")
        assert "  ! /data is full (bytes)" in lines
        assert (
            "✗ neighbours while one does 'spin' (used 1.0 s): 100 responses, 1 failed, median 0.9 → 1.0 ms, "
            "99th percentile 2.0 → 90.0 ms" in lines
        )
        document = ElementTree.fromstring(junit_report(report, "tiny"))
        assert (document.attrib["tests"], document.attrib["failures"]) == ("3", "2")
        facts = {found.attrib["name"]: found.attrib["value"] for found in document.iter("property")}
        assert facts["measured.io_read"] == "5" and facts["happened"] == "/data is full (bytes)"

    def test_one_that_only_says_that_it_passed_is_found_out_and_says_why(self) -> None:
        answered = replace(INSTANCE, checks=(CheckResult("ready", True, 250, "", StopAnswer("SIGTERM", 0)),))
        check = Check("ready", CheckKind.PORT, 1000, port=80)
        report = replace(REPORT, plan=plan_digest(SmokePlan(check)), asked=SmokePlan(check), instances=(answered,))
        lines = report_lines(report)
        told = "tiny-1: ready: the recorded result is not one of a 'port' check"
        assert f"✗ verdict recomputed: {told}" in lines and lines[-1].startswith("DID NOT PASS")
        assert told in (
            ElementTree.fromstring(junit_report(report, "tiny")).findtext("testsuite/testcase/failure") or ""
        )

    def test_a_failure_as_a_whole_is_said(self) -> None:
        lines = report_lines(replace(REPORT, instances=(), failure="nothing was asked"))
        assert lines[0] == "✗ nothing was asked"
