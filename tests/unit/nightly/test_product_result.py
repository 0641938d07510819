"""The figures of a product's last test: what ran which image, and on which worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.night_format import product_lines
from pipeline.digest import Digest
from pipeline.errors import Problem, RecipeError
from pipeline.model.absolute_path import absolute
from pipeline.model.night_record import Failure, Outcome, Stage
from pipeline.model.publication import Publication
from pipeline.model.published_image import Execution
from pipeline.nightly import product_result
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, WorkerSettings
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct
from pipeline.nightly.job import Job
from pipeline.nightly.job_failure import failed_job, failed_product, smoke_failed_product
from pipeline.nightly.progress_log import ProgressLog
from pipeline.progress import QUIET
from tests.support.journal import Journal
from tests.support.planned_nights import Nights
from tests.support.tested_images import image, report

PLATFORMS = Path("recipes/repositories.yaml")


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
    why = "it was moved back, or the mirror shows less of its moves than was seen"
    stays = f"'latest' stays at {former.short}: {why}"
    assert told.run.why == f"requested; the image is identical; {stays}"
    assert product_result.published_product(job, product, done, tested=True).run.why == f"requested; {stays}"
    done = replace(done, left=(("latest", image),))
    set_back = f"'latest' points to {image.short}, from which it was moved back, without a signed move: "
    told = product_result.published_product(job, product, done, tested=True)
    assert told.run.why == f"requested; {set_back}`relbuild promote` the right image"


def test_tags_that_a_night_moved_are_in_the_products_line(job: Job) -> None:
    run = replace(job.product.run, outcome=Outcome.BUILT, why="packages changed", moved=("1", "latest"))
    assert product_lines(replace(job.product, run=run), PLATFORMS)[0].endswith(": packages changed; moved 1, latest")
    assert product_lines(replace(job.product, run=replace(run, moved=())), PLATFORMS)[0].endswith(": packages changed")


def test_the_lines_of_a_failure_have_place_and_way_out_and_further_problems(job: Job) -> None:
    first = Problem("key-unknown", "unknown key 'verson'", "it.yaml:3: verson", "did you mean 'version'?")
    others = [
        Problem("key-unknown", f"unknown key '{letter}'", f"it.yaml:{at}", None) for at, letter in enumerate("abcdefg")
    ]
    product = failed_product(job.product, RecipeError.of([first, *others]), job.settings)
    lines = product_lines(product, PLATFORMS)
    assert lines[0] == "failed    base: it.yaml:3: verson: unknown key 'verson' [key-unknown]"
    assert lines[1] == "          → did you mean 'version'?"
    assert lines[2] == "          it.yaml:0: unknown key 'a'" and lines[6] == "          it.yaml:4: unknown key 'e'"
    assert lines[7] == "          … and 2 more" and lines[8].startswith("          again: relbuild build ")
    bare = failed_product(job.product, RecipeError("odd", "it is odd"), job.settings)
    assert (
        product_lines(bare, PLATFORMS)[:1] == ["failed    base: it is odd [odd]"]
        and len(product_lines(bare, PLATFORMS)) == 2
    )


def test_a_failure_names_documents_by_the_path_of_the_nights_options(job: Job, tmp_path: Path) -> None:
    """Two recipes in different folders of a catalogue may have one name; pages and JSON have the record alone."""
    recipe = tmp_path / "catalogue" / "web" / "it.yaml"
    (recipe.parent / "part").mkdir(parents=True)
    for one in (recipe, recipe.parent / "part" / "more.yaml"):
        one.touch()
    found = [
        Problem("key-unknown", "first", "it.yaml:3: verson"),
        Problem("key-unknown", "second", "part/more.yaml:4: x"),
        Problem("key-unknown", "third", f"{job.settings.repositories.name}:5: y"),
        Problem("key-unknown", "fourth", "gone.yaml:6"),
    ]
    product = replace(job.product, recipe=str(recipe))
    failure = failed_product(product, RecipeError.of(found), job.settings).run.failure
    assert failure is not None and failure.place == f"{recipe}:3: verson"
    assert failure.message.split("\n") == [
        "first",
        f"{recipe.parent}/part/more.yaml:4: x: second",
        f"{job.settings.repositories.name}:5: y: third",
        "gone.yaml:6: fourth",
    ]
    of_worker = replace(job, product=replace(product, recipe="given/web/it.yaml"), recipe=absolute(recipe))
    failure = failed_job(of_worker, RecipeError.of(found), ProgressLog(QUIET, lambda: 0.0)).run.failure
    assert failure is not None and failure.place == "given/web/it.yaml:3: verson"


def test_a_blocked_product_has_its_parents_command_and_no_more(job: Job) -> None:
    failure = Failure(
        Stage.PARENT, "parent-failed", "its parent 'a' failed", "child.yaml", "fix 'a' first: …", (), "again"
    )
    blocked = replace(
        job.product, run=replace(job.product.run, outcome=Outcome.BLOCKED, why=failure.message, failure=failure)
    )
    assert product_lines(blocked, PLATFORMS) == [
        "blocked   base: its parent 'a' failed [parent-failed]",
        "          again: again",
    ]
