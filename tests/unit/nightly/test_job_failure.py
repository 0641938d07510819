"""What a night keeps of a product whose smoke test failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import BuildError, EnvironmentLacking, PublicationRefused, RelbuildError
from pipeline.model.night_record import Product, Stage
from pipeline.model.report import SmokeReport
from pipeline.nightly import product_job
from pipeline.nightly.job import JobResult
from pipeline.nightly.job_failure import LOG_LINES, failed_product, publishing, smoke_failed_product
from pipeline.nightly.product_job import run_job
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


_NIGHT = ("relbuild", "nightly", "my recipes", "--to", "dir:mirror")


@pytest.mark.parametrize(
    ("error", "night"),
    [
        (BuildError("x", "it broke"), False),
        (PublicationRefused("x", "refused"), True),
        (EnvironmentLacking("mirror-unreachable", "gone"), True),
        (EnvironmentLacking("registry-failing", "down"), True),
    ],
)
def test_what_a_mirror_refuses_is_repeated_by_a_night_alone(error: RelbuildError, night: bool, tmp_path: Path) -> None:
    given = job(tmp_path)
    failure = failed_product(given.product, error, replace(given.settings, again=_NIGHT)).run.failure
    assert failure is not None
    build = "relbuild build recipes/it.yaml --upgrade --retest"
    assert failure.command == ("relbuild nightly 'my recipes' --to dir:mirror --only it" if night else build)
    assert failed_product(given.product, error, given.settings).run.failure is not None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BuildError("x", "y"), KeyError("defect")])
def test_what_fails_while_a_product_is_published_is_repeated_by_a_night(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(worker: object) -> None:
        with publishing():
            raise error

    monkeypatch.setattr(product_job._Worker, "do", fail)
    given = job(tmp_path)
    given.settings.store.mkdir(mode=0o700)
    done = run_job(replace(given, settings=replace(given.settings, again=_NIGHT)), QUIET)
    done = getattr(done, "result", done)
    assert isinstance(done, JobResult)
    failure = done.product.run.failure
    assert failure is not None and failure.command.startswith("relbuild nightly ")
    if not isinstance(error, KeyError):
        assert failure.stage is Stage.PUBLISH
