"""The figures of a product's last test: what ran which image, and on which worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.absolute_path import absolute
from pipeline.model.published_image import Execution
from pipeline.nightly import product_result
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, WorkerSettings
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
