"""The image that a recipe is built from: built, tested and reported before what is built on it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.build import build_image
from pipeline.errors import SmokeError
from tests.support.builds import order
from tests.support.staged_builds import IMAGE, LOCK, OUTPUT, World


def test_a_recipe_without_a_parent_builds_nothing_first(world: World) -> None:
    assert build_image.build_parent(order(world.folder), world.build_env) is None
    assert world.stages() == []


def test_the_parent_is_built_tested_and_reported_before_the_child_is_locked(world: World) -> None:
    world.child()
    built = build_image.build(order(world.folder), world.build_env)
    one = [*LOCK[1:], *IMAGE, *OUTPUT]
    assert world.stages() == [*one, "as_parent", *one]
    assert built.locked.parent is not None and built.locked.parent.name == "base"
    assert [call.options["target"].name for call in world.journal.of(build_image.writing_layout)] == ["base", "demo"]


def test_a_parent_of_what_is_not_tested_is_only_assembled(world: World) -> None:
    world.child()
    build_image.build(order(world.folder, smoke=False), world.build_env)
    assert [call.options["target"].name for call in world.journal.of(build_image.writing_layout)] == ["demo"]
    assert world.journal.of(build_image.smoke_test) == []


def test_a_parent_is_asked_for_as_the_child_is_but_for_what_concerns_the_child_alone(world: World) -> None:
    world.child()
    build_image.build(order(world.folder, retest=True, sources=True, full=True), world.build_env)
    asked = world.journal.of(build_image.plan_lock)[0].args[0]
    assert asked.recipe == world.folder / "base.yaml"
    assert (asked.platform, asked.architectures) == ("el9", ("x86_64",)), "those of the child's recipe"
    assert not asked.retest and not asked.sources and asked.full
    build_image.build(order(world.folder, platform="el10", architectures=("aarch64",)), world.build_env)
    asked = world.journal.of(build_image.plan_lock)[-2].args[0]
    assert (asked.platform, asked.architectures) == ("el10", ("aarch64",)), "those of the order"


def test_nothing_is_built_on_a_parent_that_did_not_pass(world: World) -> None:
    world.child()
    world.verdict = SimpleNamespace(passed=False)
    with pytest.raises(SmokeError) as caught:
        build_image.build(order(world.folder), world.build_env)
    (problem,) = caught.value.problems
    assert problem.code == "parent-failed" and "'base'" in problem.message and "'demo'" in problem.message
    assert problem.place == str(world.folder / "base.yaml")
    assert "base.report/" in str(problem.hint) and "relbuild build base.yaml --retest" in str(problem.hint)
    assert len(world.journal.of(build_image.plan_lock)) == 1 and world.stages()[-1] == "write_build_report", (
        "the parent's, for who looks"
    )
