"""Make the record of a failed product from an error or a failed smoke test."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

from pipeline.compression import Compression
from pipeline.errors import PublicationRefused, RecipeError, RelbuildError, ResolutionError, SmokeError
from pipeline.model.configuration import rpm_arch
from pipeline.model.night_record import Failure, Outcome, Product, Stage
from pipeline.model.report import SmokeReport
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER
from pipeline.nightly.job import Job, RunSettings
from pipeline.nightly.product_result import tested_product
from pipeline.nightly.progress_log import ProgressLog
from pipeline.system_errors import relbuild_error

LOG_LINES = 60
"""Last lines of a container's output that are kept of a failure."""


def failed_job(job: Job, error: Exception, progress_log: ProgressLog) -> Product:
    """Return the product with what was raised as its failure.

    A defect of relbuild fails one product, and the page shows where it is.
    """
    known = relbuild_error(error)
    if known is not None:
        return _as_given(failed_product(job.product, known, job.settings, log=tuple(progress_log.lines)), job)
    lines = tuple(line for part in traceback.format_exception(error) for line in part.rstrip().split("\n"))
    failure = Failure(
        Stage.WORKER,
        "internal-error",
        f"{type(error).__name__}: {error}",
        hint="this is a defect of relbuild: report it with these lines",
        log=(*progress_log.lines, *lines)[-LOG_LINES:],
        command=command_for(job.product, job.settings),
    )
    return _with_failure(job.product, failure.message, failure)


def failed_product(
    product: Product, error: RelbuildError, settings: RunSettings, *, log: tuple[str, ...] = ()
) -> Product:
    """Return the product with an error as its failure; its published image is kept."""
    first = error.problems[0]
    message = "\n".join(problem.message for problem in error.problems)
    failure = Failure(
        _stage(error), first.code, message, first.place or "", first.hint or "", log, command_for(product, settings)
    )
    return _with_failure(product, message.split("\n")[0], failure)


def smoke_failed_product(job: Job, report: SmokeReport | None, progress_log: ProgressLog) -> Product:
    """Return the product whose new image did not pass its smoke test.

    Its published image is kept.
    """
    problems = report.problems if report else ("the image was not launched",)
    output = [
        f"{instance.name}: {line}"
        for instance in (report.instances if report else ())
        for line in instance.log.rstrip().split("\n")
        if line
    ]
    several, folder = len(job.product.architectures) > 1, job.product.name
    if several and report is not None:
        arch = rpm_arch(report.config.architecture)
        folder, problems = f"{folder}.{arch}", tuple(f"{arch}: {problem}" for problem in problems)
    failure = Failure(
        Stage.SMOKE,
        "smoke-failed",
        "\n".join(problems),
        place=job.product.recipe,
        hint=f"see {job.settings.output / folder}.report/ for the check results and the containers' logs",
        log=tuple(output[-LOG_LINES:]) or tuple(progress_log.lines),
        command=command_for(job.product, job.settings),
    )
    return _with_failure(tested_product(job.product, [report]), problems[0], failure)


def _with_failure(product: Product, why: str, failure: Failure) -> Product:
    return replace(product, run=replace(product.run, outcome=Outcome.FAILED, why=why, failure=failure))


def _as_given(product: Product, job: Job) -> Product:
    """Return a product whose failure names files as the night's options do.

    Neither the worker's own paths nor absolute paths in place of relative ones are shown.
    """
    here, failure = CURRENT_WORKER.get(), product.run.failure
    assert failure is not None
    given = Path(product.recipe).parent

    def named(text: str) -> str:
        text = text.replace(f"{job.recipe.parent}/", "" if given == Path() else f"{given}/")
        return text.replace(f"{here.files}/", "/") if here and here.files else text

    failure = replace(
        failure,
        message=named(failure.message),
        place=named(failure.place),
        hint=named(failure.hint),
        log=tuple(map(named, failure.log)),
    )
    return replace(product, run=replace(product.run, why=named(product.run.why), failure=failure))


def _stage(error: RelbuildError) -> Stage:
    stages = {
        RecipeError: Stage.RECIPE,
        ResolutionError: Stage.RESOLVE,
        SmokeError: Stage.SMOKE,
        PublicationRefused: Stage.PUBLISH,
    }
    return next((stage for kind, stage in stages.items() if isinstance(error, kind)), Stage.BUILD)


def command_for(product: Product, settings: RunSettings) -> str:
    """Return the command that reproduces a failure."""
    mode = "--locked" if settings.locked else "--upgrade"
    words = ["relbuild", "build", product.recipe, mode, "--retest"]
    words += ["--platform", settings.platform] if settings.platform else []
    words += [word for arch in settings.architectures for word in ("--arch", arch)]
    words += ["--full"] if settings.full else []
    words += ["--compression", settings.compression.value] if settings.compression is not Compression.GZIP else []
    return " ".join(words)
