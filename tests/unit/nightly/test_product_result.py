"""The figures of a product's last test: what ran which image, and on which worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.commands.nightly import _product_line
from pipeline.digest import Digest
from pipeline.model.absolute_path import absolute
from pipeline.model.night_record import Outcome
from pipeline.model.publication import Publication
from pipeline.model.published_image import Execution
from pipeline.nightly import product_result
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, WorkerSettings
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct
from pipeline.nightly.job import Job
from pipeline.nightly.job_failure import smoke_failed_product
from pipeline.nightly.progress_log import ProgressLog
from pipeline.progress import QUIET
from tests.support.journal import Journal
from tests.support.planned_nights import Nights
from tests.support.tested_images import image, report


@pytest.fixture
def job(tmp_path: Path, journal: Journal) -> Job:
    made = Nights(tmp_path, journal).decide().job
    assert made is not None
    former = replace(made.product.published, executions=(Execution("amd64", "qemu of last week"),))
    return replace(made, product=replace(made.product, published=former))


def test_a_test_replaces_what_ran_the_image_before(job: Job, tmp_path: Path) -> None:
    native, emulated = report(image()), replace(report(image(architecture="arm64")), emulator="qemu-aarch64 7")
    assert product_result.tested_product(job.product, [native]).published.executions == (Execution("amd64"),)
    here = CURRENT_WORKER.set(WorkerSettings(absolute(tmp_path), absolute(tmp_path), "one"))
    try:
        told = product_result.tested_product(job.product, [native, emulated]).published.executions
    finally:
        CURRENT_WORKER.reset(here)
    assert told == (Execution("amd64", "", "one"), Execution("arm64", "qemu-aarch64 7", "one"))


def test_a_failed_test_of_one_architecture_names_it_and_its_report(job: Job) -> None:
    several = replace(job, product=replace(job.product, arch="x86_64,aarch64"))
    failed = replace(report(image(architecture="arm64")), failure="it broke", emulator="qemu-aarch64 7")
    product = smoke_failed_product(several, failed, ProgressLog(QUIET, lambda: 0.0))
    assert product.run.failure is not None and product.run.why.startswith("aarch64: ")
    assert f"{job.product.name}.aarch64.report" in product.run.failure.hint
    assert product.published.executions == (Execution("arm64", "qemu-aarch64 7"),)
    alone = smoke_failed_product(job, failed, ProgressLog(QUIET, lambda: 0.0))
    assert alone.run.failure is not None and f"{job.product.name}.report" in alone.run.failure.hint


def test_tags_that_stay_where_they_were_moved_back_to_are_told(job: Job) -> None:
    """The same image again, of which no tag moved, was only tested."""
    image, former = Digest.of(b"image"), Digest.of(b"former")
    done = Publication("dir:m/tiny", image, "1.0-x", (), ("1.0",), (), (), (), (), left=(("latest", former),))
    again = replace(job, on_mirror=PublishedProduct(InputsRecord((), (), ""), image, "1.0-x"))
    product = replace(job.product, run=replace(job.product.run, why="requested"))
    told = product_result.published_product(again, product, done, tested=True)
    assert (told.run.outcome, told.run.moved, told.published.tags) == (Outcome.RETESTED, (), ("1.0",))
    stays = f"'latest' stays at {former.short}, where it was moved back to"
    assert told.run.why == f"requested; the image is identical; {stays}"
    assert product_result.published_product(job, product, done, tested=True).run.why == f"requested; {stays}"


def test_tags_that_a_night_moved_are_in_the_products_line(job: Job) -> None:
    run = replace(job.product.run, outcome=Outcome.BUILT, why="packages changed", moved=("1", "latest"))
    assert _product_line(replace(job.product, run=run)).endswith(": packages changed; moved 1, latest")
    assert _product_line(replace(job.product, run=replace(run, moved=()))).endswith(": packages changed")
