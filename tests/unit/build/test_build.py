"""The narrative of a build: which stages come after which, what one hands to the next, and what an error ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.build import build_image, build_index
from pipeline.errors import BuildError, EnvironmentLacking, RelbuildError, SmokeError, UsageError
from pipeline.layers import BuiltLayer
from pipeline.model.image import Descriptor, Image, Layer
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import SmokePlan
from pipeline.model.tree import Tree
from pipeline.prepare import LockedRecipe
from pipeline.process import Completed, run
from pipeline.store import Store, UnnamedCopies, UnnamedCopy
from tests.support.builds import build_env, image, layer, locked, order, parent, recipe, section
from tests.support.journal import Journal

LOCK = [
    "build_parent",
    "plan_lock",
    "retry_if_changed",
    "resolve",
    "fetch_and_verify",
    "number_owners",
    "group_layers",
    "keep_lock",
]
IMAGE = [
    *("compose_layers", "obtain_files", "preparing_last_layer", "packing_layers"),
    *("add_state", "configure_image"),
]
OUTPUT = [
    *("writing_layout", "make_bill", "make_build_record", "make_documents", "smoke_test"),
    "write_build_report",
]
BESIDE = ("plan_state", "render_recipe_files")
"""What goes on while the layers are packed."""
BESIDE_SCRIPTS = ("begin_documents", "draft_layers")
"""What may go on until the image is made."""

READING = ("load_recipe", "begin_rendering", "recipe_name", "read_layout_images", "built_platform", "choose_platform")

TREE = Tree.of({})
PACKED = [
    BuiltLayer.packed(layer("base"), reused=True),
    BuiltLayer.packed(layer("product"), reused=False),
]
BILLED = ("billed",)
PREPARED = SimpleNamespace(begin=lambda: None)
STATE = SimpleNamespace(layer=layer("state"), changes=(), failures=(), states={"a": (0,)}, reused=False)


class World:
    """Recipes in a folder, and stand-ins for all stages."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal = folder, journal
        self.build_env = build_env(folder)
        self.recipes: dict[str, Recipe] = {"demo": recipe(folder)}
        self.layers: list[list[Layer]] = []
        self.verdict: Any = SimpleNamespace(passed=True)
        self.on_other, self.built_for = replace(recipe(folder), smoke=SmokePlan(instances=7)), "el9"
        stages: dict[Any, Any] = {
            build_image.load_recipe: lambda path, target: (
                self.on_other if target.name == "other" else self.recipes[path.stem]
            ),
            build_image.recipe_name: lambda path: path.stem,
            build_image.read_layout_images: lambda layout: (None, (image(layout.name),)),
            build_image.built_platform: lambda folder, digest: self.built_for,
            build_image.choose_platform: lambda recipe, options: SimpleNamespace(full_name=options.platform),
            build_image.plan_lock: lambda order, build_env, parent: SimpleNamespace(order=order, parent=parent),
            build_image.resolve: lambda plan: section(),
            build_image.fetch_and_verify: lambda plan, found: ("headers", found),
            build_image.retry_if_changed: lambda plan, obtain: obtain(),
            build_image.number_owners: lambda plan, found, headers: (replace(found, build_time=1), "accounts"),
            build_image.group_layers: lambda plan, found, order: replace(found, build_time=found.build_time + 1),
            build_image.keep_lock: self._locked,
            build_image.compose_layers: lambda made: SimpleNamespace(tree=TREE, states={}),
            build_image.begin_rendering: None,
            build_image.packing_layers: lambda *given, **more: nullcontext(PACKED),
            build_image.preparing_last_layer: lambda *given: nullcontext(PREPARED),
            build_image.obtain_files: None,
            build_image.render_recipe_files: lambda *given: (("a file",), (folder / "t.j2",)),
            build_image.plan_state: lambda *given: "plan",
            build_image.begin_documents: lambda *given: BILLED,
            build_image.add_state: lambda *given, **more: STATE,
            build_image.configure_image: self._configured,
            build_image.draft_layers: lambda layers, compression: [one.layer for one in layers],
            build_image.obtain_sources: lambda *given: ("a source package",),
            build_image.writing_layout: lambda *given, **more: nullcontext(),
            build_image.make_bill: lambda *given, **more: "bill",
            build_image.make_build_record: lambda *given: "record",
            build_image.make_documents: lambda *given: (("bill.json", b"{}"),),
            build_image.smoke_test: lambda *given: SimpleNamespace(report=self.verdict, evidence=None, reused=False),
            build_image.write_build_report: None,
            build_image.as_parent: lambda made, *given, **more: parent(made.name),
            build_image.load_layout_image: lambda layout, store: image(layout.name),
        }
        for stage, does in stages.items():
            journal.stand_in(build_image, stage, does)

    def _locked(self, plan: Any, found: Any, headers: Any, accounts: Any, mode: Any) -> LockedRecipe:
        return replace(locked(self.recipes[plan.order.recipe.stem]), section=found, parent=plan.parent)

    def _configured(self, made: LockedRecipe) -> Any:
        def with_layers(layers: list[Layer]) -> Image:
            self.layers.append(layers)
            return image(made.recipe.name)

        return SimpleNamespace(with_layers=with_layers)

    def failing(self, stage: Any, error: Exception) -> None:
        """Let a stage raise."""

        def fail(*given: Any, **more: Any) -> None:
            raise error

        self.journal.stand_in(build_image, stage, fail)

    def stages(self) -> list[str]:
        """What was called, but for reading recipes and what goes on beside."""
        return [name for name in self.journal.names if name not in (*READING, *BESIDE, *BESIDE_SCRIPTS)]

    def child(self) -> None:
        """The recipe `demo` is built from `base` from now on."""
        base = recipe(self.folder, "base")
        self.recipes |= {"base": base, "demo": replace(self.recipes["demo"], parent=base)}


@pytest.fixture
def world(tmp_path: Path, journal: Journal) -> World:
    return World(tmp_path, journal)


# --- a build -----------------------------------------------------------------------------------------------


def test_a_build_goes_through_its_stages_in_their_order(world: World) -> None:
    built = build_image.build(order(world.folder), world.build_env)
    assert world.stages() == [*LOCK[1:], *IMAGE, *OUTPUT]
    assert built.image.name == "demo" and built.layout == world.folder / "output" / "demo"
    assert built.documents == (("bill.json", b"{}"),) and (built.bill, built.record) == ("bill", "record")
    assert built.took == 1.0
    names = world.journal.names
    assert all(names.index("obtain_files") < names.index(one) < names.index("add_state") for one in BESIDE)


def test_each_stage_works_on_what_the_one_before_it_gave(world: World) -> None:
    build_image.build(order(world.folder), world.build_env)
    given = world.journal.last
    (plan,) = given(build_image.resolve).args
    assert given(build_image.fetch_and_verify).args == (plan, section())
    assert given(build_image.number_owners).args == (plan, section(), ("headers", section()))
    assert given(build_image.group_layers).args[1].build_time == 1
    assert given(build_image.keep_lock).args[1:4] == (section(build_time=2), ("headers", section()), "accounts")
    made, composition, layers, files, plan = given(build_image.add_state).args
    assert plan == "plan"
    assert made.section.build_time == 2 and composition.tree is TREE and layers is PACKED and files == ("a file",)
    assert given(build_image.packing_layers).options["making"] is PREPARED.begin
    assert given(build_image.add_state).options["prepared"] is PREPARED
    assert given(build_image.writing_layout).args == (image(),)
    assert given(build_image.begin_documents).args[0] is made
    assert given(build_image.make_bill).args == (image(), BILLED, TREE)
    assert given(build_image.smoke_test).args[0] == image()
    (built, store) = given(build_image.write_build_report).args
    assert built.tested.report is world.verdict and store is world.build_env.store


def test_copies_that_the_layout_did_not_want_are_gone_before_the_test(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, seen = list[UnnamedCopy](), list[bool]()
    make, write, test = Store.copies_for, build_image.writing_layout, build_image.smoke_test

    def copies_for(*given: Any) -> UnnamedCopies:
        copies = make(*given)
        copy = copies.begin(1)
        assert copy is not None
        begun.append(copy)
        return copies

    def seeing(stage: Any) -> Any:
        return lambda *given, **more: (seen.append(begun[-1].closed), stage(*given, **more))[1]

    monkeypatch.setattr(Store, "copies_for", copies_for)
    monkeypatch.setattr(build_image, "writing_layout", seeing(write))
    monkeypatch.setattr(build_image, "smoke_test", seeing(test))
    build_image.build(order(world.folder), world.build_env)
    assert seen == [False, True]


def test_an_image_has_its_parents_layers_then_its_own_then_the_state(world: World) -> None:
    world.child()
    made = build_image.assemble(order(world.folder, smoke=False), world.build_env)
    assert [one.name for one in world.layers[-1]] == ["base/base", "base/state", "base", "product", "state"]
    assert made.reused == ("base/base", "base/state", "base") and made.states == {"a": (0,)}
    assert made.templates == (world.folder / "t.j2",)


# --- beside the packing ----------------------------------------------------------------------------------


def packing(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layer `product` is packed until the end of the block; returns what was seen of its documents."""
    seen: list[str] = []
    product: Future[Descriptor] = Future()
    layers = [PACKED[0], replace(PACKED[1], blob=product)]

    @contextmanager
    def packs(*given: Any, **more: Any) -> Iterator[list[BuiltLayer]]:
        yield layers
        seen.append("packed")
        product.set_result(layer("product").blob)

    def described(kind: str, made: Image) -> Any:
        seen.append(kind)
        return SimpleNamespace(image=made)

    def drafts(layers: Any, compression: Any) -> Any:
        return [one.layer if one.confirmed else replace(layer(one.name), tar_size=7) for one in layers]

    def completed(drafted: Any, made: Image) -> tuple[str, str]:
        seen.append("completed")
        return "completed bill", "completed record"

    documents = SimpleNamespace(of=lambda bill, record: SimpleNamespace(complete=lambda made: completed(bill, made)))
    stages: dict[Any, Any] = {
        build_image.packing_layers: packs,
        build_image.draft_layers: drafts,
        build_image.make_bill: lambda made, *given, **more: described("bill", made),
        build_image.make_build_record: lambda made, inputs: described("record", made),
        build_image.DraftedDocuments: documents,
        build_image.begin_snapshot: lambda *given: seen.append("snapshot begun"),
    }
    for stage, does in stages.items():
        monkeypatch.setattr(build_image, stage.__name__, does)
    return seen


def test_documents_and_snapshot_are_begun_beside_the_packing_and_completed_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = packing(world, monkeypatch)
    built = build_image.build(order(world.folder, smoke=False), world.build_env)
    begun = ["bill", "record", "snapshot begun"]
    assert seen == [*begun, "packed", "completed"]
    assert (built.bill, built.record) == ("completed bill", "completed record")
    assert [[one.tar_size == 7 for one in layers] for layers in world.layers] == [[False, True, False], [False] * 3]
    assert world.journal.last(build_image.make_documents).args[4] is built.assembled.drafted


def test_what_cannot_be_drafted_is_made_when_all_layers_are_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = packing(world, monkeypatch)
    real, full = build_image.make_build_record, iter([OSError(28, "No space left on device")])

    def record(*given: Any) -> Any:
        for error in full:
            raise error
        return real(*given)

    monkeypatch.setattr(build_image, "make_build_record", record)
    built = build_image.build(order(world.folder, smoke=False), world.build_env)
    assert seen == ["bill", "packed", "bill", "record"]
    assert built.assembled.drafted is None and built.assembled.begun is None


def test_sources_are_downloaded_before_the_output_is_locked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others build and test the same product meanwhile."""
    held: list[list[str]] = []
    real = Store.locked

    def locked(self: Store, name: str) -> AbstractContextManager[None]:
        held.append(world.stages())
        return real(self, name)

    monkeypatch.setattr(Store, "locked", locked)
    build_image.build(order(world.folder, sources=True), world.build_env)
    assert held == [[*LOCK[1:], *IMAGE, "obtain_sources"]]
    assert world.journal.last(build_image.make_documents).args[2] == ("a source package",)
    build_image.build(order(world.folder), world.build_env)
    assert world.journal.last(build_image.make_documents).args[2] is None
    assert len(world.journal.of(build_image.obtain_sources)) == 1


def test_what_is_not_to_be_tested_is_not_launched_and_has_a_report_all_the_same(world: World) -> None:
    built = build_image.build(order(world.folder, smoke=False), world.build_env)
    assert world.stages() == [*LOCK[1:], *IMAGE, *(stage for stage in OUTPUT if stage != "smoke_test")]
    assert built.tested is None and built.report is None and built.evidence is None and not built.verdict_reused


def test_an_image_that_fails_its_tests_is_no_error_and_is_reported(world: World) -> None:
    world.verdict = SimpleNamespace(passed=False)
    built = build_image.build(order(world.folder), world.build_env)
    assert built.report is world.verdict and world.stages()[-1] == "write_build_report"


@pytest.mark.parametrize("stage", [*LOCK[3:], *IMAGE, *BESIDE, *OUTPUT])
def test_a_stage_that_fails_ends_the_build_there(stage: str, world: World) -> None:
    error = BuildError("it-failed", "it failed")
    world.failing(getattr(build_image, stage), error)
    with pytest.raises(RelbuildError) as caught:
        build_image.build(order(world.folder), world.build_env)
    whole = [*LOCK[1:], *IMAGE, *OUTPUT]
    assert caught.value is error
    assert world.stages() == whole[: whole.index("packing_layers" if stage in BESIDE else stage) + 1]


def test_an_interrupt_while_layers_are_packed_ends_the_rendering_beside(world: World) -> None:
    begun, ended = world.folder / "begun", list[Completed]()

    def render(*_: object) -> tuple[tuple[()], tuple[()]]:
        ended.append(run(["sh", "-c", f"touch {begun}; sleep 300"], timeout=300, check=False))
        return (), ()

    def interrupt(*_: object, **more: object) -> None:
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    world.journal.stand_in(build_image, build_image.render_recipe_files, render)
    world.journal.stand_in(build_image, build_image.packing_layers, interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_image.assemble(order(world.folder), world.build_env)
    assert [one.status for one in ended] == [-9]
    assert not {"plan_state", "begin_documents"} & {*world.journal.names}


def test_an_error_while_layers_are_packed_begins_nothing_more_beside(world: World) -> None:
    """Also what waited for the thread; what it does is waited for."""
    error = BuildError("it-failed", "it failed")
    world.failing(build_image.render_recipe_files, error)
    world.journal.stand_in(build_image, build_image.plan_state, lambda *_: time.sleep(0.5))
    with pytest.raises(BuildError) as caught:
        build_image.assemble(order(world.folder), world.build_env)
    assert caught.value is error
    assert "begin_documents" not in world.journal.names


def test_layout_verdict_and_report_are_made_under_one_lock_that_an_error_gives_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world.build_env.store), "locked", lambda store, name: world.journal.held(name))
    lock = f"output-{(world.folder / 'output' / 'demo').resolve()}"
    build_image.build(order(world.folder), world.build_env)
    assert world.stages()[-len(OUTPUT) - 2 :] == [f"take {lock}", *OUTPUT, f"give {lock}"]
    world.failing(build_image.smoke_test, EnvironmentLacking("runtime-missing", "there is none"))
    with pytest.raises(EnvironmentLacking):
        build_image.build(order(world.folder), world.build_env)
    assert world.stages()[-2:] == ["smoke_test", f"give {lock}"]


def test_what_was_resolved_before_the_repositories_changed_is_thrown_away(world: World) -> None:
    sections = iter((section(build_time=10), section(build_time=20)))
    world.journal.stand_in(build_image, build_image.resolve, lambda plan: next(sections))
    world.journal.stand_in(build_image, build_image.retry_if_changed, lambda plan, obtain: (obtain(), obtain())[1])
    build_image.lock(order(world.folder), world.build_env)
    assert world.stages()[1:6] == ["retry_if_changed", "resolve", "fetch_and_verify", "resolve", "fetch_and_verify"]
    assert world.journal.last(build_image.number_owners).args[1].build_time == 20


# --- what it is built from ---------------------------------------------------------------------------------


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


# --- locking, explaining, testing again, launching --------------------------------------------------------


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


def test_the_verdict_of_a_build_is_that_of_its_test(world: World) -> None:
    report = SmokeReport(image().digest, image().digest, "runc", (), 0, 0)
    world.journal.stand_in(
        build_image,
        build_image.smoke_test,
        lambda *given: SimpleNamespace(report=report, evidence="sealed", reused=True),
    )
    built = build_image.build(order(world.folder), world.build_env)
    assert built.report is report and built.evidence == "sealed" and built.verdict_reused
