"""The narrative of a build: which stages come after which, what one hands to the next, and what an error ends."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.build import build_image
from pipeline.errors import BuildError, EnvironmentLacking, RelbuildError, UsageError
from pipeline.layers import BuiltLayer
from pipeline.model.image import Descriptor, Image
from pipeline.model.report import SmokeReport
from pipeline.process import Completed, run
from pipeline.store import Store, UnnamedCopies, UnnamedCopy
from tests.support.builds import image, layer, order, section
from tests.support.patience import HUNG
from tests.support.staged_builds import BESIDE, BILLED, CHILDREN, IMAGE, LOCK, OUTPUT, PACKED, PREPARED, TREE, World

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
    assert given(build_image.packing_layers).options["children"] is CHILDREN
    assert given(build_image.add_state).options["prepared"] is PREPARED
    assert given(build_image.writing_layout).args == (image(),)
    assert given(build_image.begin_documents).args[0] is made
    assert given(build_image.make_bill).args == (image(), BILLED, TREE)
    assert given(build_image.smoke_test).args[0] == image()
    (built, store) = given(build_image.write_build_report).args
    assert built.tested.report is world.verdict and store is world.build_env.store


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands there is left, and no folder is made for what is not built."""
    output = world.folder / "output"
    (output / "demo").mkdir(parents=True)
    (output / "demo" / "mine").touch()
    with pytest.raises(UsageError) as caught:
        build_image.build(order(world.folder), world.build_env)
    assert caught.value.code == "not-a-layout" and not world.stages() and (output / "demo" / "mine").exists()
    shutil.rmtree(output)
    (output / "demo.report").mkdir(parents=True)
    (output / "demo.report" / "mine").touch()
    with pytest.raises(UsageError) as caught:
        build_image.build(order(world.folder), world.build_env)
    assert caught.value.code == "not-a-report" and not world.stages() and (output / "demo.report" / "mine").exists()
    shutil.rmtree(output)

    def refuse(*given: Any, **_: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", given[0])

    monkeypatch.setattr("pipeline.atomic_folders.os.open", refuse)
    with pytest.raises(OSError, match="Read-only") as refused:
        build_image.build(order(world.folder), world.build_env)
    assert refused.value.filename == str(output) and not world.stages() and not output.exists()


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
    assert made.templates.files == (world.folder / "t.j2",)


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


def test_the_verdict_of_a_build_is_that_of_its_test(world: World) -> None:
    report = SmokeReport(image().digest, image().digest, "runc", (), 0, 0)
    world.journal.stand_in(
        build_image,
        build_image.smoke_test,
        lambda *given: SimpleNamespace(report=report, evidence="sealed", reused=True),
    )
    built = build_image.build(order(world.folder), world.build_env)
    assert built.report is report and built.evidence == "sealed" and built.verdict_reused


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


def test_an_error_while_layers_are_packed_begins_nothing_more_beside(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what waited for the thread; what it does is waited for."""
    error, ended, shutdown = BuildError("it-failed", "it failed"), threading.Event(), ThreadPoolExecutor.shutdown

    def told(pool: ThreadPoolExecutor, **how: Any) -> None:
        shutdown(pool, **how | {"wait": False})
        ended.set()
        shutdown(pool, **how)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", told)
    world.failing(build_image.render_recipe_files, error)
    world.journal.stand_in(build_image, build_image.plan_state, lambda *_: ended.wait(HUNG))
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
