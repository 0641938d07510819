"""What is asked of an image without building it again: explained, tested again, launched."""

from __future__ import annotations

import pytest

from pipeline.build import build_image, build_index
from pipeline.errors import UsageError
from tests.support.builds import image, order
from tests.support.journal import Journal
from tests.support.staged_builds import World


def test_a_package_is_explained_from_a_lock_for_which_nothing_is_launched(
    world: World, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.child()
    journal.stand_in(build_index, build_index.explain, lambda chosen, package: f"{package} is there")
    journal.stand_in(build_index, build_index._for_each, lambda options: [options])
    told = build_index.explain_package(order(world.folder), world.build_env, "bash")
    assert list(told.values()) == ["bash is there"]
    assert journal.of(build_image.smoke_test) == [] and journal.of(build_image.writing_layout) == []
    assert "compose_layers" in world.stages(), "the parent's, which has to be there to be built upon"


def test_an_image_is_tested_again_from_its_layout_and_its_report_says_so(world: World, journal: Journal) -> None:
    journal.stand_in(build_image, build_image.update_recorded_checks)
    journal.stand_in(build_image, build_image.write_evidence)
    name, verdict = build_image.smoke_image(order(world.folder), world.build_env, None)
    assert (name, verdict) == ("demo", world.verdict)
    assert world.stages() == ["load_layout_image", "smoke_test", "update_recorded_checks", "write_evidence"]
    assert journal.last(build_image.load_layout_image).args == (world.folder / "output" / "demo",)
    assert journal.last(build_image.smoke_test).args[2].retest, "a verdict of before is not what was asked for"
    folder, digest, _, _ = journal.last(build_image.update_recorded_checks).args
    assert folder == world.folder / "output" / "demo.report" and digest == image().digest


def test_an_image_of_another_place_is_tested_and_the_report_of_the_output_is_left_alone(
    world: World, journal: Journal
) -> None:
    journal.stand_in(build_image, build_image.update_recorded_checks)
    journal.stand_in(build_image, build_image.write_evidence)
    build_image.smoke_image(order(world.folder), world.build_env, world.folder / "elsewhere")
    assert world.stages() == ["load_layout_image", "smoke_test"]
    assert journal.last(build_image.load_layout_image).args == (world.folder / "elsewhere",)


def test_what_is_to_be_launched_is_built_only_where_it_is_not_there(world: World) -> None:
    found, plan = build_image.load_or_build(order(world.folder), world.build_env)
    assert found == image() and plan == world.recipes["demo"].smoke
    assert world.stages()[0] == "plan_lock" and world.stages()[-1] == "load_layout_image"
    assert "smoke_test" not in world.stages()
    world.journal.calls.clear()
    (world.folder / "output" / "demo").mkdir(parents=True)
    build_image.load_or_build(order(world.folder), world.build_env)
    assert world.stages() == ["load_layout_image"]


@pytest.mark.parametrize(
    ("asked", "built", "instances"),
    [(None, "el9", 1), (None, "other", 7), ("other", "other", 7), ("other", None, 7)],
)
def test_an_image_is_asked_as_the_recipe_is_on_the_platform_that_it_was_built_for(
    world: World, journal: Journal, asked: str | None, built: str | None, instances: int
) -> None:
    for stage in (build_image.update_recorded_checks, build_image.write_evidence):
        journal.stand_in(build_image, stage)
    world.built_for = built
    (world.folder / "output" / "demo").mkdir(parents=True)
    build_image.smoke_image(order(world.folder, platform=asked), world.build_env, None)
    assert journal.last(build_image.smoke_test).args[1].smoke.instances == instances
    journal.calls.clear()
    _, plan = build_image.load_or_build(order(world.folder, platform=asked), world.build_env)
    assert plan.instances == instances and "plan_lock" not in world.stages()


@pytest.mark.parametrize("layout", [None, "elsewhere"])
def test_an_image_of_another_platform_is_not_tested_for_the_one_that_was_asked_for(
    world: World, journal: Journal, layout: str | None
) -> None:
    for stage in (build_image.update_recorded_checks, build_image.write_evidence):
        journal.stand_in(build_image, stage)
    (world.folder / "output" / "demo").mkdir(parents=True)
    asked = order(world.folder, platform="other")
    with pytest.raises(UsageError) as caught:
        build_image.smoke_image(asked, world.build_env, world.folder / layout if layout else None)
    (problem,) = caught.value.problems
    assert problem.code == "platform-differs" and "'el9'" in problem.message and "'other'" in problem.message
    assert problem.place == str(world.folder / (layout or "output/demo"))
    assert "relbuild build demo.yaml --platform other" in str(problem.hint)
    assert world.stages() == ["load_layout_image"], "no verdict of other checks is sealed"
    journal.calls.clear()
    _, plan = build_image.load_or_build(asked, world.build_env)
    assert plan.instances == 7 and "plan_lock" in world.stages(), "what is launched is built again"
