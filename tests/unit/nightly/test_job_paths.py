"""Work that leaves a process names files by absolute paths, and what it reports is confirmed where it was promised."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, cast

import pytest

from pipeline.digest import Digest
from pipeline.errors import PublicationRefused, RecipeError, UsageError
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.directory.directory_address_form import DIRECTORY
from pipeline.mirror.backends.layout.layout_address_form import LAYOUT
from pipeline.mirror.protocol import Mirror
from pipeline.model.absolute_path import AbsolutePath, absolute, refuse_relative
from pipeline.model.night_record import Outcome, Product, ProductRun
from pipeline.nightly import product_job
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, WorkerSettings
from pipeline.nightly.executors.task_payload import PlacedPayload, TaskPayload, run_payload
from pipeline.nightly.job import Job, JobResult, RunSettings
from pipeline.nightly.job_result_check import require_published
from pipeline.nightly.product_job import run_job
from pipeline.progress import QUIET, Progress
from pipeline.recipes import PlatformTarget

ONE, OTHER = Digest.of(b"one"), Digest.of(b"other")


def no_clock() -> float:
    return 0.0


def job(folder: Path, recipe: str = "recipes/it.yaml") -> Job:
    settings = RunSettings(
        repositories=absolute(folder / "recipes" / "repositories.yaml"),
        to=parse_address(f"dir:{folder}/mirror"),
        key=None,
        store=absolute(folder / "store"),
        output=absolute(folder / "output"),
        environment={},
        clock=no_clock,
    )
    product = Product("it", recipe, "el9", "x86_64", ProductRun(Outcome.UNCHANGED, ""))
    return Job(product, absolute(folder / recipe), settings, (), (), "")


@pytest.mark.parametrize("text", ["dir:mirror", "dir:./a/mirror", "oci:layout:latest"])
def test_a_mirror_by_a_relative_path_is_the_one_below_the_folder_where_it_was_read(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address(text)
    monkeypatch.chdir("/")
    assert address.path.is_absolute() and address.path.is_relative_to(tmp_path)
    assert parse_address(str(address)) == address


def test_an_address_of_a_relative_path_cannot_be_made() -> None:
    for form in (DIRECTORY, LAYOUT):
        with pytest.raises(ValueError, match="relative"):
            Address(form, "mirror")


def nothing(work: object, progress: Progress) -> object:
    return str(Path.cwd())


def test_an_order_that_holds_a_relative_path_is_not_sent(tmp_path: Path) -> None:
    good = job(tmp_path)
    TaskPayload.of(nothing, good, ())
    for wrong in (
        replace(good, recipe=AbsolutePath(Path("recipes/it.yaml"))),
        replace(good, settings=replace(good.settings, key=AbsolutePath(Path("night.key")))),
    ):
        with pytest.raises(UsageError) as refused:
            TaskPayload.of(nothing, wrong, ())
        assert refused.value.code == "path-relative"
    with pytest.raises(UsageError, match=r"the work\[a\] is the relative path 'b'"):
        refuse_relative({"a": (Path("/"), Path("b"))})


def test_a_worker_by_a_relative_store_uses_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = WorkerSettings(absolute(Path("store")), absolute(Path("output")), "worker")
    payload = TaskPayload.of(nothing, None, ())
    token = CURRENT_WORKER.set(None)
    try:
        where = run_payload(PlacedPayload(place, payload), QUIET)
    finally:
        CURRENT_WORKER.reset(token)
    assert isinstance(where, str) and Path(where).is_relative_to(tmp_path / "store")
    assert pickle.loads(payload.work) == (nothing, None)
    assert not Path(where).exists()


@pytest.mark.parametrize("cluster", [False, True], ids=["here", "cluster"])
def test_a_failure_names_files_as_they_were_given(
    cluster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: PlatformTarget) -> NoReturn:
        assert target.definitions.name == "repositories.yaml"
        raise RecipeError("wrong", f"{path} is wrong", place=str(path.parent.parent / "templates" / "t.j2"))

    monkeypatch.setattr(product_job, "load_recipe", refuse)
    given = job(tmp_path)
    here = WorkerSettings(absolute(tmp_path / "s"), absolute(tmp_path / "o"), "w", absolute(tmp_path / "files"))
    token = CURRENT_WORKER.set(here if cluster else None)
    try:
        worked = run_job(given, QUIET)
    finally:
        CURRENT_WORKER.reset(token)
    assert isinstance(worked, JobResult) and worked.product.run.failure is not None
    told = worked.product.run.failure
    assert told.message == "recipes/it.yaml is wrong" and worked.product.run.why == told.message
    assert told.place == f"{tmp_path}/templates/t.j2"


# --- confirmed on the destination ----------------------------------------------------------------------


@dataclass
class Tags:
    """A mirror of one repository of which only the tags are known."""

    tags: dict[str, Digest]

    def repository(self, name: str) -> Tags:
        return self

    def resolve(self, tag: str) -> Digest | None:
        return self.tags.get(tag)


def published(outcome: Outcome = Outcome.BUILT) -> Product:
    product = Product("it", "it.yaml", "el9", "x86_64", ProductRun(outcome, "", worker="one"))
    return replace(product, published=replace(product.published, digest=ONE, immutable="1-2025", tags=("latest", "1")))


def confirm(product: Product, tags: dict[str, Digest]) -> None:
    require_published(product, cast("Mirror", Tags(tags)), "dir:/m")


def test_what_a_worker_says_is_built_is_believed_when_every_tag_points_there() -> None:
    confirm(published(), dict.fromkeys(("1-2025", "latest", "1"), ONE))


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({}, "'it:1-2025' does not exist"),
        ({"1-2025": ONE, "latest": ONE}, "'it:1' does not exist"),
        ({"1-2025": ONE, "latest": OTHER, "1": ONE}, f"'it:latest' points to {OTHER}"),
    ],
    ids=["nothing", "one-missing", "another"],
)
def test_what_a_worker_says_is_built_and_is_not_on_the_mirror_fails(tags: dict[str, Digest], told: str) -> None:
    with pytest.raises(PublicationRefused) as refused:
        confirm(published(), tags)
    assert refused.value.code == "publication-missing"
    assert told in str(refused.value) and "one reports" in str(refused.value)


def test_a_test_alone_demands_the_tag_that_is_for_ever() -> None:
    confirm(published(Outcome.RETESTED), {"1-2025": ONE, "latest": OTHER})
    with pytest.raises(PublicationRefused):
        confirm(published(Outcome.RETESTED), {"1-2025": OTHER})


def test_what_was_not_published_is_not_asked_for() -> None:
    confirm(published(Outcome.UNCHANGED), {})
    confirm(published(Outcome.FAILED), {})
