"""A child is built from the images of its parent that are published, each architecture from its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, ResolutionError
from pipeline.model.absolute_path import absolute
from pipeline.model.night_record import Product
from pipeline.nightly import product_job, published_parent
from pipeline.nightly.executors.executor_protocol import MachineFault
from pipeline.nightly.job import Job, JobResult
from pipeline.nightly.night_planner import Planner
from pipeline.nightly.product_job import run_job
from pipeline.progress import QUIET
from tests.support.builds import locked, parent, recipe, section
from tests.support.journal import Journal
from tests.support.planned_nights import CHILD, RECIPE, Nights

INDEX = Digest.of(b"index")
MEMBERS = {"amd64": Digest.of(b"member x86_64"), "arm64": Digest.of(b"member aarch64")}
BOTH = "[x86_64, aarch64]"


@pytest.fixture
def nights(tmp_path: Path, journal: Journal) -> Nights:
    """A parent of two architectures, and a child of one."""
    made = Nights(tmp_path, journal)
    made.change("repositories.yaml", "[x86_64]", BOTH)
    made.write("base.yaml", (RECIPE % "base").replace("[x86_64]", BOTH))
    made.write("child.yaml", f"{CHILD}architectures: [aarch64]\n")
    images = [SimpleNamespace(config=SimpleNamespace(architecture=one), digest=MEMBERS[one]) for one in MEMBERS]
    journal.stand_in(published_parent, published_parent.read_published, gives=SimpleNamespace(images=images))
    return made


def decided(planner: Planner, digest: Digest | None = INDEX) -> Job:
    """The job of the child of what was published tonight."""
    base, child = (planner.catalogue.find(name) for name in ("base", "child"))
    assert base is not None and child is not None
    tonight: Product = planner.plan(base)
    tonight = replace(tonight, published=replace(tonight.published, digest=digest))
    job = planner.decide(child, planner.plan(child), tonight, {}).job
    assert job is not None
    return job


def test_a_child_of_one_architecture_is_built_from_the_member_of_its_parents_index(nights: Nights) -> None:
    assert dict(decided(nights.planner()).parents)["aarch64"] == MEMBERS["arm64"]
    asked, reference = nights.journal.last(published_parent.read_published).args
    assert (asked.name, reference) == ("base", INDEX)


def test_a_child_of_several_architectures_is_built_from_the_member_of_each(nights: Nights) -> None:
    nights.change("child.yaml", "[aarch64]", BOTH)
    assert decided(nights.planner()).parents == (("aarch64", MEMBERS["arm64"]), ("x86_64", MEMBERS["amd64"]))


def test_a_parent_of_one_architecture_is_its_own_image_and_not_asked_for(nights: Nights) -> None:
    nights.change("base.yaml", BOTH, "[x86_64]")
    nights.change("child.yaml", "[aarch64]", "[x86_64]")
    assert decided(nights.planner()).parents == (("x86_64", INDEX),)
    assert nights.journal.of(published_parent.read_published) == []


def test_a_parent_that_is_not_published_is_not_compared_with(nights: Nights) -> None:
    assert decided(nights.planner(), None).parents == ()


@pytest.mark.parametrize(("code", "unsuitable"), [("architecture-foreign", True), ("no-cgroups", False)])
def test_a_machine_without_an_emulator_is_sound(code: str, unsuitable: bool, nights: Nights, tmp_path: Path) -> None:
    def lack(*given: Any) -> Any:
        raise EnvironmentLacking(code, "it is lacking")

    nights.journal.stand_in(product_job, product_job.load_recipe, lack)
    done = run_job(decided(nights.planner()), QUIET)
    assert isinstance(done, MachineFault) and (done.why, done.unsuitable) == ("it is lacking", unsuitable)


@pytest.mark.parametrize(
    ("published", "code"),
    [
        ({"x86_64": "base x86_64", "aarch64": "base aarch64"}, "reached"),
        ({"x86_64": "base x86_64"}, "reached"),
        ({"x86_64": "base x86_64", "aarch64": "other"}, "parent-differs"),
        ({"x86_64": "other", "aarch64": "base aarch64"}, "parent-differs"),
    ],
)
def test_a_worker_builds_each_member_from_the_parent_that_is_published_of_its_architecture(
    published: dict[str, str], code: str, nights: Nights, tmp_path: Path
) -> None:
    made = {arch: parent(f"base {arch}", "a-1-1.noarch") for arch in ("x86_64", "aarch64")}
    digests = {one.name: one.digest for one in made.values()} | {"other": Digest.of(b"other")}
    of = recipe(tmp_path, "child")
    every = []
    for arch, below in made.items():
        plain = section()
        resolved = replace(plain, resolution=replace(plain.resolution, arch=arch))
        every.append(locked(of, section=resolved, parent=below))

    def reach(*given: Any) -> Any:
        raise ResolutionError("reached", "it is built")

    nights.journal.stand_in(product_job, product_job.load_recipe, gives=of)
    nights.journal.stand_in(product_job, product_job.lock_architectures, gives=tuple(every))
    nights.journal.stand_in(product_job, product_job.build_architectures, reach)
    parents = tuple((arch, digests[name]) for arch, name in published.items())
    given = replace(decided(nights.planner()), recipe=absolute(tmp_path / "child.yaml"), parents=parents)
    done = run_job(given, QUIET)
    assert isinstance(done, JobResult) and done.product.run.failure is not None
    assert done.product.run.failure.code == code
