"""Which files the reports of a night replace, and to which they append."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.path_arguments import (
    JUNIT_MARK,
    STEP_SUMMARY_VARIABLE,
    SUMMARY_MARK,
    is_step_summary,
    require_report_file,
)
from pipeline.errors import UsageError
from pipeline.site import junit_xml, summary_markdown
from pipeline.smoke import junit_reports
from tests.support import nightly_examples
from tests.support.tested_images import image, report
from tests.support.typed_command import run_typed

LAST = nightly_examples.nights(1)[-1]


def test_a_report_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    for content in (
        junit_reports([("tiny", report(image()))]),
        junit_xml(nightly_examples.nights(1)[-1]),
        b"",
        b'<testsuite name="of another tool"/>',
    ):
        path.write_bytes(content)
        assert require_report_file(path, "--junit", JUNIT_MARK) == path


@pytest.mark.parametrize(
    "content",
    [
        summary_markdown(LAST),
        summary_markdown(replace(LAST, products=())),
        summary_markdown(replace(LAST, exceeded=("a fix",), threshold="important:7", exit_code=9)),
        f"{summary_markdown(LAST)}\n\n{summary_markdown(LAST)}",
        "",
    ],
)
def test_a_summary_takes_the_place_of_an_earlier_one(content: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text(content)
    assert require_report_file(path, "--summary", SUMMARY_MARK) == path


@pytest.mark.parametrize(
    "content", ["name: redis\n", "# Notes\n", "## Notes\n\ntext\n", f"Above.\n\n{summary_markdown(LAST)}", "<a/>"]
)
def test_a_summary_takes_the_place_of_no_other_text(content: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text(content)
    with pytest.raises(UsageError, match="not-a-report"):
        require_report_file(path, "--summary", SUMMARY_MARK)


def test_the_file_that_ci_names_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    path = tmp_path / "step_summary"
    path.write_text("tests passed\n")
    link = tmp_path / "link"
    link.symlink_to(path)
    for named in (path, link, tmp_path / "." / "step_summary"):
        assert is_step_summary(path, {STEP_SUMMARY_VARIABLE: str(named)})
        assert is_step_summary(link, {STEP_SUMMARY_VARIABLE: str(named)})
    for environment in ({}, {STEP_SUMMARY_VARIABLE: ""}, {STEP_SUMMARY_VARIABLE: str(tmp_path / "other")}):
        assert not is_step_summary(path, environment)


def test_text_of_others_in_the_file_that_ci_names_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options are looked at in order: the night gets as far as the missing folder of recipes."""
    path = tmp_path / "step_summary"
    path.write_text("tests passed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    for value, told in ((str(path), ""), ("", "error[not-a-report] --summary")):
        monkeypatch.setenv(STEP_SUMMARY_VARIABLE, value)
        assert run_typed(f"nightly nosuch --to dir:m --key k --summary {path}", monkeypatch) != 0
        assert ("not-a-report" in capsys.readouterr().err) == bool(told)
    assert path.read_text() == "tests passed\n"
