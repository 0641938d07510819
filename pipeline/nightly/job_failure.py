"""Make the record of a failed product from an error or a failed smoke test."""

from __future__ import annotations

import contextlib
import os
import shlex
import traceback
from collections.abc import Iterator, Sequence
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
from pipeline.smoke.log_lines import explaining_line, log_excerpt
from pipeline.smoke.shared_failures import SharedFailure, instances_text, shared_failures
from pipeline.system_errors import FULL_DISK, full_disk_error, relbuild_error

LOG_LINES = 60
"""Lines of containers' output that are kept of a failure."""

_OF_MIRROR = ("mirror-", "registry-")
"""Beginnings of the codes of errors of a mirror, which is read also before anything is built."""

_DOCUMENTS = (".yaml", ".yml")
"""Endings of the files that a recipe is written in."""

_LOGS_SHOWN = 3
"""Instances whose logs are shown, of those that failed in ways of their own."""


class PublishingFailedError(Exception):
    """An error that was raised while a product was published. It is the cause."""


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """Raise errors of the block as PublishingFailedError: a build does not repeat them."""
    try:
        yield
    except Exception as error:
        raise PublishingFailedError from error


def failed_job(job: Job, error: Exception, progress_log: ProgressLog, *, published: bool = False) -> Product:
    """Return the product with what was raised as its failure.

    A defect of relbuild fails one product, and the page shows where it is. `published`: it was raised while the product
    was published.
    """
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        error = full_disk_error(error, job.settings.store)
    known = relbuild_error(error)
    if known is not None:
        log = tuple(progress_log.lines)
        failed = failed_product(
            job.product, known, job.settings, log=log, published=published, folder=job.recipe.parent
        )
        return _as_given(failed, job)
    lines = tuple(line for part in traceback.format_exception(error) for line in part.rstrip().split("\n"))
    failure = Failure(
        Stage.WORKER,
        "internal-error",
        f"{type(error).__name__}: {error}",
        hint="this is a defect of relbuild: report it with these lines",
        log=(*progress_log.lines, *lines)[-LOG_LINES:],
        command=command_for(job.product, job.settings, published=published),
    )
    return _with_failure(job.product, failure.message, failure)


def failed_product(
    product: Product,
    error: RelbuildError,
    settings: RunSettings,
    *,
    log: tuple[str, ...] = (),
    published: bool = False,
    folder: Path | None = None,
) -> Product:
    """Return the product with an error as its failure; its published image is kept.

    `published`: it was raised while the product was published, as what the mirror or the gate refuses always is.
    `folder`: where the recipe was read, if not where the night's options name it.
    """

    def named(place: str) -> str:
        return _with_folder(place, product, folder or Path(product.recipe).parent, settings)

    of_mirror = isinstance(error, PublicationRefused) or error.code.startswith(_OF_MIRROR)
    command = command_for(product, settings, published=published or of_mirror)
    first = error.problems[0]
    others = (f"{named(one.place)}: {one.message}" if one.place else one.message for one in error.problems[1:])
    message = "\n".join((first.message, *others))
    stage = Stage.PUBLISH if published else _stage(error)
    failure = Failure(stage, first.code, message, named(first.place or ""), first.hint or "", log, command)
    return _with_failure(product, message.split("\n")[0], failure)


def smoke_failed_product(job: Job, report: SmokeReport | None, progress_log: ProgressLog) -> Product:
    """Return the product whose new image did not pass its smoke test.

    Its published image is kept. A failure that instances share is told once, with the first line of their logs that
    explains it.
    """
    failures = shared_failures(report) if report else ()
    told = [_told(one, report) for one in failures if report] or [("the image was not launched",)]
    cause, log = _log_of(failures, report) if report else ("", ())
    several, folder = len(job.product.architectures) > 1, job.product.name
    if several and report is not None:
        arch = rpm_arch(report.config.architecture)
        folder, told = f"{folder}.{arch}", [(f"{arch}: {first}", *others) for first, *others in told]
    failure = Failure(
        Stage.SMOKE,
        "smoke-failed",
        "\n".join(line for lines in told for line in lines),
        place=next((_place(one.place, job) for one in failures if one.place), job.product.recipe),
        hint=f"see {job.settings.output / folder}.report/ for the check results and the containers' logs",
        log=log or tuple(progress_log.lines),
        command=command_for(job.product, job.settings),
        cause=cause,
    )
    product = tested_product(job.product, [report])
    checks = tuple(replace(check, place=_place(check.place, job)) for check in product.published.checks)
    product = replace(product, published=replace(product.published, checks=checks))
    return _as_given(_with_failure(product, told[0][0], failure), job)


def _told(failure: SharedFailure, report: SmokeReport) -> tuple[str, ...]:
    """Return a failure as lines: the sentence with its instances, what templates rendered to."""
    instances = instances_text(failure, report)
    sentence = f"{failure.sentence} ({instances})" if instances else failure.sentence
    return (sentence, *(text.sentence for text in failure.from_templates))


def _place(place: str, job: Job) -> str:
    """Return a check's place as the night's options name the recipe's folder.

    It is relative to that folder.
    """
    return _in_folder_of(job.product, place) if place else ""


def _with_folder(place: str, product: Product, folder: Path, settings: RunSettings) -> str:
    """Return a place in a document of the recipe with its path as the night's options name it.

    The library's places are relative to the recipe's folder, in which two recipes of a catalogue may have one name.
    """
    name, colon, rest = place.partition(":")
    if not name.endswith(_DOCUMENTS) or name == settings.repositories.name or Path(name).is_absolute():
        return place
    return f"{_in_folder_of(product, name)}{colon}{rest}" if (folder / name).is_file() else place


def _in_folder_of(product: Product, name: str) -> str:
    return os.path.normpath(Path(product.recipe).parent / name)


def _log_of(failures: Sequence[SharedFailure], report: SmokeReport) -> tuple[str, tuple[str, ...]]:
    """Return the line that explains the first failure, and excerpts of instances' logs.

    One instance is shown for all that share a failure.
    """
    names = dict.fromkeys(one.instances[0] for one in failures if one.instances)
    logs = {one.name: one.log.rstrip().splitlines() for one in report.instances if one.name in names}
    cause, shown = "", []
    for name in [name for name in names if logs[name]][:_LOGS_SHOWN]:
        lines = logs[name]
        found = explaining_line(lines)
        if found is not None:
            cause = cause or lines[found].strip()
        lead = f"{name}: " if len(logs) > 1 else ""
        shown += [f"{lead}{line}" for line in log_excerpt(lines, found, LOG_LINES // min(len(logs), _LOGS_SHOWN))]
    return cause, tuple(shown)


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


def command_for(product: Product, settings: RunSettings, *, published: bool = False) -> str:
    """Return the command that repeats a failure.

    That of an image that was `published` is repeated by a night alone, as a build publishes nothing.
    """
    if published and settings.again:
        return shlex.join((*settings.again, "--only", product.name))
    mode = "--locked" if settings.locked else "--upgrade"
    words = ["relbuild", "build", product.recipe, mode, "--retest"]
    words += ["--platform", settings.platform] if settings.platform else []
    words += [word for arch in settings.architectures for word in ("--arch", arch)]
    words += ["--full"] if settings.full else []
    words += ["--compression", settings.compression.value] if settings.compression is not Compression.GZIP else []
    return shlex.join(words)
