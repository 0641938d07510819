"""A product of several architectures on several machines: a job for each image, then one for the index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused
from pipeline.model.lock import Lock
from pipeline.model.night_record import Failure, Outcome, Product, Stage
from pipeline.model.published_image import Execution, PackageChange
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.executors.task_result import read_result, result_bytes
from pipeline.nightly.inputs import templates_digest
from pipeline.nightly.job import Job, JobResult, MemberImage
from pipeline.nightly.lock_comparison import joined_locks, lock_of_architecture, same_packages
from pipeline.nightly.member_job import require_same_templates
from pipeline.nightly.member_tasks import MemberTasks, task_product
from pipeline.recipes import load_recipe
from pipeline.resolve import format_lock
from tests.support.builds import package, section
from tests.support.journal import Journal
from tests.support.planned_nights import RECIPE, Nights
from tests.support.signing_examples import PROVENANCE_VALUE

ARCHITECTURES = ("x86_64", "aarch64")
BOTH = "[x86_64, aarch64]"


def lock(arch: str, nevra: str = "a-1-1.noarch") -> str:
    plain = section(package(nevra))
    return format_lock(Lock("base", (replace(plain, resolution=replace(plain.resolution, arch=arch)),)))


@pytest.fixture
def job(tmp_path: Path, journal: Journal) -> Job:
    nights = Nights(tmp_path, journal)
    nights.change("repositories.yaml", "[x86_64]", BOTH)
    nights.write("base.yaml", (RECIPE % "base").replace("[x86_64]", BOTH))
    made = nights.decide().job
    assert made is not None and made.resolve
    on_mirror = nights.settle(made, Digest.of(b"index"), joined_locks([lock(arch) for arch in ARCHITECTURES]))
    return replace(made, on_mirror=on_mirror)


def built(tasks: MemberTasks, arch: str, worker: str, *, began: int = 1000, took: int = 500, **more: Any) -> TaskResult:
    """What comes back of an image that was built: it passed the scheduler as JSON."""
    product = tasks.job.product
    run = replace(
        product.run, outcome=Outcome.BUILT, why="packages changed", began=began, took=took, steps=(("smoke", took),)
    )
    ran = (Execution({"x86_64": "amd64", "aarch64": "arm64"}[arch], more.get("emulator", ""), worker),)
    figures = replace(product.published, executions=ran, changes=more.get("changes", ()))
    product = replace(product, run=replace(run, uploaded=7), published=figures)
    member = MemberImage(
        arch, Digest.of(arch.encode()), lock(arch), ("page.j2",), "content", PROVENANCE_VALUE, tested=True
    )
    ended = TaskResult(f"base/{arch}", JobResult(product, None, lock(arch), member), worker=worker)
    return replace(read_result(result_bytes(ended)), worker=worker)


def unchanged(tasks: MemberTasks, arch: str) -> TaskResult:
    product = tasks.job.product
    run = replace(product.run, outcome=Outcome.UNCHANGED, why="resolved to the same packages", began=900, took=10)
    member = MemberImage(arch, Digest.of(b"former"), lock(arch), ("page.j2",), "content")
    return TaskResult(f"base/{arch}", JobResult(replace(product, run=run), None, lock(arch), member), worker="one")


def built_by_arm(tasks: MemberTasks, arch: str) -> TaskResult:
    return built(tasks, arch, "arm")


def test_each_architecture_is_a_task_of_its_own(job: Job) -> None:
    tasks = dict(MemberTasks(job).tasks())
    assert {name: part.architecture for name, part in tasks.items()} == {
        "base/x86_64": "x86_64",
        "base/aarch64": "aarch64",
    }
    assert task_product("base/aarch64") == ("base", "aarch64") and task_product("base") == ("base", "")


def test_when_all_are_built_the_index_is_published_of_all(job: Job) -> None:
    tasks = MemberTasks(job)
    assert tasks.take("aarch64", built(tasks, "aarch64", "arm", began=1000, took=9000)) is None
    joined = tasks.take("x86_64", built(tasks, "x86_64", "intel", began=1500))
    assert isinstance(joined, Job)
    assert [(one.architecture, one.digest) for one in joined.members] == [
        (arch, Digest.of(arch.encode())) for arch in ARCHITECTURES
    ]
    assert joined.product.published.executions == (Execution("amd64", "", "intel"), Execution("arm64", "", "arm"))
    assert (joined.product.run.why, joined.product.run.uploaded) == ("packages changed", 14)
    # What the index's own job says of the run is completed with theirs.
    own = replace(joined.product.run, began=10_100, took=200, steps=(("publish", 200),), worker="intel")
    done = tasks.completed(replace(joined.product, run=own))
    assert (done.run.began, done.run.took) == (1000, 9300) == (done.published.built, done.published.build_took)
    assert done.run.steps == (("smoke", 9000), ("publish", 200))
    assert done.run.worker == "arm, intel"


def test_what_is_resolved_to_the_published_packages_goes_into_the_new_index_as_it_is(job: Job) -> None:
    tasks = MemberTasks(job)
    assert tasks.take("x86_64", unchanged(tasks, "x86_64")) is None
    joined = tasks.take("aarch64", built(tasks, "aarch64", "arm", emulator="qemu-aarch64 7.2.22"))
    assert isinstance(joined, Job)
    assert [one.digest for one in joined.members] == [Digest.of(b"former"), Digest.of(b"aarch64")]
    assert joined.product.run.outcome is Outcome.BUILT
    assert joined.product.published.executions == (Execution("arm64", "qemu-aarch64 7.2.22", "arm"),)


def test_the_changes_are_those_of_the_first_image_that_was_built(job: Job) -> None:
    tasks = MemberTasks(job)
    changes = (PackageChange("a", "1-1", "1-2"),)
    tasks.take("x86_64", unchanged(tasks, "x86_64"))
    joined = tasks.take("aarch64", built(tasks, "aarch64", "arm", changes=changes))
    assert isinstance(joined, Job)
    assert joined.product.published.changes == changes


def test_where_all_are_resolved_to_the_published_packages_nothing_is_published(job: Job) -> None:
    tasks = MemberTasks(job)
    tasks.take("x86_64", unchanged(tasks, "x86_64"))
    ended = tasks.take("aarch64", unchanged(tasks, "aarch64"))
    assert isinstance(ended, TaskResult) and isinstance(ended.result, JobResult) and job.on_mirror is not None
    assert ended.name == "base" and ended.result.product.run.outcome is Outcome.UNCHANGED
    assert ended.result.on_mirror is not None and ended.result.on_mirror.digest == job.on_mirror.digest
    assert same_packages(ended.result.lock, job.on_mirror.record.lock)


def test_one_image_that_fails_fails_the_product_and_the_failure_names_the_architecture(job: Job) -> None:
    tasks = MemberTasks(job)
    failure = Failure(Stage.SMOKE, "smoke-failed", "the check 'page' failed")
    run = replace(job.product.run, outcome=Outcome.FAILED, why=failure.message, failure=failure)
    failed: Product = replace(job.product, run=run)
    tasks.take("aarch64", TaskResult("base/aarch64", JobResult(failed, None), worker="arm", tried=("arm", "two")))
    ended = tasks.take("x86_64", built(tasks, "x86_64", "intel"))
    assert isinstance(ended, TaskResult) and isinstance(ended.result, JobResult)
    assert (ended.name, ended.worker, ended.tried) == ("base", "arm", ("arm", "two"))
    run = ended.result.product.run
    assert run.failure is not None and run.failure.message == "aarch64: the check 'page' failed" == run.why


@pytest.mark.parametrize("make", [built_by_arm, unchanged])
def test_an_image_of_another_architecture_than_the_tasks_is_refused(
    make: Callable[[MemberTasks, str], TaskResult], job: Job
) -> None:
    tasks = MemberTasks(job)
    tasks.take("x86_64", built(tasks, "x86_64", "intel"))
    ended = tasks.take("aarch64", replace(make(tasks, "x86_64"), name="base/aarch64", worker="arm"))
    assert isinstance(ended, TaskResult) and isinstance(ended.result, JobResult)
    assert (ended.name, ended.worker, ended.result.on_mirror) == ("base", "arm", None)
    failure = ended.result.product.run.failure
    assert ended.result.product.run.outcome is Outcome.FAILED and failure is not None
    assert failure.code == "answer-foreign"
    assert failure.message == "aarch64: the worker returned an image for 'x86_64' instead of 'aarch64'"


def test_an_architecture_that_no_worker_has_fails_the_product_with_the_way_out(job: Job) -> None:
    tasks = MemberTasks(job)
    tasks.take("x86_64", built(tasks, "x86_64", "intel"))
    ended = tasks.take("aarch64", TaskResult("base/aarch64", lost="no worker offers aarch64", hint="start one"))
    assert ended == TaskResult("base", lost="aarch64: no worker offers aarch64", hint="start one")


def test_locks_are_taken_apart_and_joined_by_architecture() -> None:
    both = joined_locks([lock(arch, f"{arch}-1-1.noarch") for arch in ARCHITECTURES])
    for arch in ARCHITECTURES:
        assert lock_of_architecture(both, "el9", arch) == lock(arch, f"{arch}-1-1.noarch")
    assert lock_of_architecture(both, "el9", "s390x") == "" == lock_of_architecture("", "el9", "x86_64")


def test_images_of_other_templates_than_those_of_the_index_are_refused(job: Job) -> None:
    recipe = load_recipe(job.recipe)
    page = job.recipe.parent / "page.j2"
    page.write_text("before")
    content = templates_digest(recipe, ("page.j2",))
    members = [MemberImage(arch, Digest.of(arch.encode()), "", ("page.j2",), content) for arch in ARCHITECTURES]
    require_same_templates(members, recipe)
    page.write_text("after")
    members[0] = replace(members[0], templates_content=templates_digest(recipe, ("page.j2",)))
    with pytest.raises(PublicationRefused) as refused:
        require_same_templates(members, recipe)
    assert refused.value.code == "templates-changed" and "the image for aarch64" in str(refused.value)
