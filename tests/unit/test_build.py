"""The narrative of a build: which stages come after which, what one hands to the next, and what an error ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.build import run
from pipeline.errors import BuildError, EnvironmentLacking, RelbuildError, SmokeError
from pipeline.gather import Locked
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.tree import Tree
from tests.support.builds import image, layer, locked, order, parent, recipe, section, workshop
from tests.support.journal import Journal

LOCK = [
    "build_parent",
    "plan_lock",
    "steadily",
    "resolve",
    "fetch_and_verify",
    "number_owners",
    "group_layers",
    "keep_lock",
]
IMAGE = ["compose_layers", "pack_layers", "obtain_archives", "render_files", "add_state", "make_config_and_manifest"]
OUTPUT = ["write_layout", "make_bill", "make_record", "describe", "test", "report"]

TREE = Tree.of({})
PACKED = [SimpleNamespace(layer=layer("base"), reused=True), SimpleNamespace(layer=layer("product"), reused=False)]
STATE = SimpleNamespace(layer=layer("state"), changes=(), states={"a": (0,)}, reused=False)


class World:
    """Recipes in a folder, and stand-ins for all stages."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.workshop = workshop(folder)
        self.recipes: dict[str, Recipe] = {"demo": recipe(folder)}
        self.verdict: Any = SimpleNamespace(passed=True)
        stages: dict[Any, Any] = {
            run.load_recipe: lambda path: self.recipes[path.stem],
            run.plan_lock: lambda order, workshop, parent: SimpleNamespace(order=order, parent=parent),
            run.resolve: lambda plan: section(),
            run.fetch_and_verify: lambda plan, found: ("headers", found),
            run.steadily: lambda plan, obtain: obtain(),
            run.number_owners: lambda plan, found, headers: (replace(found, build_time=1), "accounts"),
            run.group_layers: lambda plan, found, order: replace(found, build_time=found.build_time + 1),
            run.keep_lock: self._locked,
            run.compose_layers: lambda made: SimpleNamespace(tree=TREE, states={}),
            run.pack_layers: lambda *given: PACKED,
            run.obtain_archives: None,
            run.render_files: lambda *given: (("a file",), (folder / "t.j2",)),
            run.add_state: lambda *given, **more: STATE,
            run.make_config_and_manifest: lambda made, layers: image(made.recipe.name),
            run.write_layout: None,
            run.make_bill: lambda *given, **more: "bill",
            run.make_record: lambda *given: "record",
            run.describe: lambda *given: (("bill.json", b"{}"),),
            run.test: lambda *given: SimpleNamespace(report=self.verdict, evidence=None, reused=False),
            run.report: None,
            run.as_parent: lambda made, *given, **more: parent(made.name),
            run.adopt_layout: lambda layout, store: image(layout.name),
        }
        for stage, does in stages.items():
            journal.stand_in(run, stage, does)

    def _locked(self, plan: Any, found: Any, headers: Any, accounts: Any, mode: Any) -> Locked:
        return replace(locked(self.recipes[plan.order.recipe.stem]), section=found, parent=plan.parent)

    def failing(self, stage: Any, error: Exception) -> None:
        """Let a stage raise."""

        def fail(*given: Any, **more: Any) -> None:
            raise error

        self.journal.stand_in(run, stage, fail)

    def stages(self) -> list[str]:
        """What was called, but for reading recipes."""
        return [name for name in self.journal.names if name != "load_recipe"]

    def child(self) -> None:
        """The recipe `demo` is built from `base` from now on."""
        base = recipe(self.folder, "base")
        self.recipes |= {"base": base, "demo": replace(self.recipes["demo"], parent=base)}


@pytest.fixture
def world(tmp_path: Path, journal: Journal) -> World:
    return World(tmp_path, journal)


# --- a build -----------------------------------------------------------------------------------------------


def test_a_build_goes_through_its_stages_in_their_order(world: World) -> None:
    built = run.build(order(world.folder), world.workshop)
    assert world.stages() == [*LOCK[1:], *IMAGE, *OUTPUT]
    assert built.image.name == "demo" and built.layout == world.folder / "output" / "demo"
    assert built.documents == (("bill.json", b"{}"),) and (built.bill, built.record) == ("bill", "record")
    assert built.took == 1.0


def test_each_stage_works_on_what_the_one_before_it_gave(world: World) -> None:
    run.build(order(world.folder), world.workshop)
    given = world.journal.last
    (plan,) = given(run.resolve).args
    assert given(run.fetch_and_verify).args == (plan, section())
    assert given(run.number_owners).args == (plan, section(), ("headers", section()))
    assert given(run.group_layers).args[1].build_time == 1
    assert given(run.keep_lock).args[1:4] == (section(build_time=2), ("headers", section()), "accounts")
    made, composition, layers, files = given(run.add_state).args
    assert made.section.build_time == 2 and composition.tree is TREE and layers is PACKED and files == ("a file",)
    assert given(run.write_layout).args == (image(),)
    assert given(run.make_bill).args[3] is TREE
    assert given(run.test).args[0] == image()
    (built, store) = given(run.report).args
    assert built.tested.report is world.verdict and store is world.workshop.store


def test_an_image_has_its_parents_layers_then_its_own_then_the_state(world: World) -> None:
    world.child()
    made = run.assemble(order(world.folder, smoke=False), world.workshop)
    layers = world.journal.last(run.make_config_and_manifest).args[1]
    assert [one.name for one in layers] == ["base/base", "base/state", "base", "product", "state"]
    assert made.reused == ("base/base", "base/state", "base") and made.states == {"a": (0,)}
    assert made.templates == (world.folder / "t.j2",)


def test_what_is_not_to_be_tested_is_not_launched_and_has_a_report_all_the_same(world: World) -> None:
    built = run.build(order(world.folder, smoke=False), world.workshop)
    assert world.stages() == [*LOCK[1:], *IMAGE, *(stage for stage in OUTPUT if stage != "test")]
    assert built.tested is None and built.report is None and built.evidence is None and not built.verdict_reused


def test_an_image_that_fails_its_tests_is_no_error_and_is_reported(world: World) -> None:
    world.verdict = SimpleNamespace(passed=False)
    built = run.build(order(world.folder), world.workshop)
    assert built.report is world.verdict and world.stages()[-1] == "report"


@pytest.mark.parametrize("stage", [*LOCK[3:], *IMAGE, *OUTPUT])
def test_a_stage_that_fails_ends_the_build_there(stage: str, world: World) -> None:
    error = BuildError("it-failed", "it failed")
    world.failing(getattr(run, stage), error)
    with pytest.raises(RelbuildError) as caught:
        run.build(order(world.folder), world.workshop)
    whole = [*LOCK[1:], *IMAGE, *OUTPUT]
    assert caught.value is error
    assert world.stages() == whole[: whole.index(stage) + 1]


def test_layout_verdict_and_report_are_made_under_one_lock_that_an_error_gives_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.workshop.store), "locked", lambda store, name: world.journal.held(name))
    lock = f"output-{(world.folder / 'output' / 'demo').resolve()}"
    run.build(order(world.folder), world.workshop)
    assert world.stages()[-8:] == [f"take {lock}", *OUTPUT, f"give {lock}"]
    world.failing(run.test, EnvironmentLacking("runtime-missing", "there is none"))
    with pytest.raises(EnvironmentLacking):
        run.build(order(world.folder), world.workshop)
    assert world.stages()[-2:] == ["test", f"give {lock}"]


def test_what_was_resolved_before_the_repositories_changed_is_thrown_away(world: World) -> None:
    sections = iter((section(build_time=10), section(build_time=20)))
    world.journal.stand_in(run, run.resolve, lambda plan: next(sections))
    world.journal.stand_in(run, run.steadily, lambda plan, obtain: (obtain(), obtain())[1])
    run.lock(order(world.folder), world.workshop)
    assert world.stages()[1:6] == ["steadily", "resolve", "fetch_and_verify", "resolve", "fetch_and_verify"]
    assert world.journal.last(run.number_owners).args[1].build_time == 20


# --- what it is built from ---------------------------------------------------------------------------------


def test_a_recipe_without_a_parent_builds_nothing_first(world: World) -> None:
    assert run.build_parent(order(world.folder), world.workshop) is None
    assert world.stages() == []


def test_the_parent_is_built_tested_and_reported_before_the_child_is_locked(world: World) -> None:
    world.child()
    built = run.build(order(world.folder), world.workshop)
    one = [*LOCK[1:], *IMAGE, *OUTPUT]
    assert world.stages() == [*one, "as_parent", *one]
    assert built.locked.parent is not None and built.locked.parent.name == "base"
    assert [call.options["target"].name for call in world.journal.of(run.write_layout)] == ["base", "demo"]


def test_a_parent_of_what_is_not_tested_is_only_assembled(world: World) -> None:
    world.child()
    run.build(order(world.folder, smoke=False), world.workshop)
    assert [call.options["target"].name for call in world.journal.of(run.write_layout)] == ["demo"]
    assert world.journal.of(run.test) == []


def test_a_parent_is_asked_for_as_the_child_is_but_for_what_concerns_the_child_alone(world: World) -> None:
    world.child()
    run.build(order(world.folder, retest=True, sources=True, full=True), world.workshop)
    asked = world.journal.of(run.plan_lock)[0].args[0]
    assert asked.recipe == world.folder / "base.yaml"
    assert (asked.platform, asked.architectures) == ("el9", ("x86_64",)), "those of the child's recipe"
    assert not asked.retest and not asked.sources and asked.full
    run.build(order(world.folder, platform="el10", architectures=("aarch64",)), world.workshop)
    asked = world.journal.of(run.plan_lock)[-2].args[0]
    assert (asked.platform, asked.architectures) == ("el10", ("aarch64",)), "those of the order"


def test_nothing_is_built_on_a_parent_that_did_not_pass(world: World) -> None:
    world.child()
    world.verdict = SimpleNamespace(passed=False)
    with pytest.raises(SmokeError) as caught:
        run.build(order(world.folder), world.workshop)
    (problem,) = caught.value.problems
    assert problem.code == "parent-failed" and "'base'" in problem.message and "'demo'" in problem.message
    assert problem.place == str(world.folder / "base.yaml")
    assert "base.report/" in str(problem.hint) and "relbuild build base.yaml --retest" in str(problem.hint)
    assert len(world.journal.of(run.plan_lock)) == 1 and world.stages()[-1] == "report", "the parent's, for who looks"


# --- locking, explaining, testing again, launching --------------------------------------------------------


def test_a_package_is_explained_from_a_lock_for_which_nothing_is_launched(
    world: World, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.child()
    journal.stand_in(run, run.explain, lambda chosen, package: f"{package} is there")
    assert run.explain_package(order(world.folder), world.workshop, "bash") == "bash is there"
    assert journal.of(run.test) == [] and journal.of(run.write_layout) == []
    assert "compose_layers" in world.stages(), "the parent's, which has to be there to be built upon"


def test_an_image_is_tested_again_from_its_layout_and_its_report_says_so(world: World, journal: Journal) -> None:
    journal.stand_in(run, run.restate_checks)
    journal.stand_in(run, run.keep_evidence)
    name, verdict = run.smoke_image(order(world.folder), world.workshop, None)
    assert (name, verdict) == ("demo", world.verdict)
    assert world.stages() == ["adopt_layout", "test", "restate_checks", "keep_evidence"]
    assert journal.last(run.adopt_layout).args == (world.folder / "output" / "demo",)
    assert journal.last(run.test).args[2].retest, "a verdict of before is not what was asked for"
    folder, digest, _, _ = journal.last(run.restate_checks).args
    assert folder == world.folder / "output" / "demo.report" and digest == image().digest


def test_an_image_of_another_place_is_tested_and_the_report_of_the_output_is_left_alone(
    world: World, journal: Journal
) -> None:
    journal.stand_in(run, run.restate_checks)
    journal.stand_in(run, run.keep_evidence)
    run.smoke_image(order(world.folder), world.workshop, world.folder / "elsewhere")
    assert world.stages() == ["adopt_layout", "test"]
    assert journal.last(run.adopt_layout).args == (world.folder / "elsewhere",)


def test_what_is_to_be_launched_is_built_only_where_it_is_not_there(world: World) -> None:
    found, plan = run.launchable(order(world.folder), world.workshop)
    assert found == image() and plan == world.recipes["demo"].smoke
    assert world.stages()[0] == "plan_lock" and world.stages()[-1] == "adopt_layout"
    assert "test" not in world.stages()
    world.journal.calls.clear()
    (world.folder / "output" / "demo").mkdir(parents=True)
    run.launchable(order(world.folder), world.workshop)
    assert world.stages() == ["adopt_layout"]


def test_the_verdict_of_a_build_is_that_of_its_test(world: World) -> None:
    report = SmokeReport(image().digest, image().digest, "runc", (), 0, 0)
    world.journal.stand_in(run, run.test, lambda *given: SimpleNamespace(report=report, evidence="sealed", reused=True))
    built = run.build(order(world.folder), world.workshop)
    assert built.report is report and built.evidence == "sealed" and built.verdict_reused
