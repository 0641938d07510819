"""What a night keeps of a product whose smoke test failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.model.night_record import Product
from pipeline.model.report import SmokeReport
from pipeline.nightly.job_failure import LOG_LINES, smoke_failed_product
from pipeline.nightly.progress_log import ProgressLog
from pipeline.progress import QUIET
from tests.unit.nightly.test_job_paths import job
from tests.unit.smoke.test_shared_failures import SHARED


def failed(folder: Path, report: SmokeReport | None) -> Product:
    progress_log = ProgressLog(QUIET, lambda: 0.0)
    progress_log.lines.append("smoke it: failed")
    return smoke_failed_product(job(folder), report, progress_log)


def test_a_shared_failure_is_told_once_with_the_first_line_that_explains_it(tmp_path: Path) -> None:
    product = failed(tmp_path, SHARED)
    failure = product.run.failure
    assert failure is not None
    assert failure.message.split("\n") == [
        "answers: exit code 1, not 0: cannot connect to mysql-1 (after 3 s) (mysql-1, mysql-2)",
        "command[2]: '{{ values.port }}' rendered to '3306'",
        "answers: exit code 2, not 0 (mysql-read-only)",
        "command[2]: '{{ values.port }}' rendered to '3306'",
    ]
    assert failure.cause == "[ERROR] no space" and failure.place == "recipes/mysql.yaml:41: smoke.checks[0]"
    assert failure.log == ("mysql-1: boot", "mysql-1: [ERROR] no space", "mysql-1: bye")
    assert product.run.why == failure.message.split("\n")[0]


def test_a_log_is_cut_at_line_ends_and_keeps_what_explains(tmp_path: Path) -> None:
    log = "\n".join(["boot", "FATAL: no space", *(f"line {number}" for number in range(300))])
    first = replace(SHARED.instances[0], log=log)
    failure = failed(tmp_path, replace(SHARED, instances=(first,))).run.failure
    assert failure is not None and failure.cause == "FATAL: no space"
    assert failure.log[:2] == ("boot", "FATAL: no space") and failure.log[-1] == "line 299"
    assert len(failure.log) == LOG_LINES + 1 and "lines omitted]" in " ".join(failure.log)


def test_without_a_report_the_nights_own_lines_are_kept(tmp_path: Path) -> None:
    failure = failed(tmp_path, None).run.failure
    assert failure is not None and failure.cause == ""
    assert failure.message == "the image was not launched" and failure.log == ("smoke it: failed",)
    assert failure.place == "recipes/it.yaml"


def test_a_place_is_named_as_the_nights_options_name_the_recipe(tmp_path: Path) -> None:
    for place, named in [
        ("it.yaml:7: smoke", "recipes/it.yaml:7: smoke"),
        ("../base.yaml:3: smoke", "base.yaml:3: smoke"),
    ]:
        checks = (replace(SHARED.asked.checks[0], place=place), SHARED.asked.checks[1])
        product = failed(tmp_path, replace(SHARED, asked=replace(SHARED.asked, checks=checks)))
        assert product.run.failure is not None and product.run.failure.place == named
        assert product.published.checks[0].place == named
