"""Which verdict of a smoke test counts again, and what is kept of a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import launch, layers, sandbox, smoke
from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, UsageError, VerificationError
from pipeline.model.checks import CheckKind
from pipeline.model.image import Image
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import LoopbackPort, Older
from pipeline.model.smoke import Neighbours, SmokePlan
from pipeline.sandbox import EMULATION_SLOWDOWN
from pipeline.sandbox.launchers.launcher import SandboxLauncher
from pipeline.smoke import loopback_warnings
from pipeline.smoke import run as smoke_module
from pipeline.store import Store
from tests.support.builds import image as plain_image
from tests.support.journal import Journal, Told
from tests.support.launch_stand_ins import CONTENTS, Bench
from tests.support.tested_images import (
    PLAN,
    evidence,
    image,
    report,
    results,
    with_instance,
)


def failed(made: Image) -> Any:
    return replace(with_instance(evidence(made), 0, checks=()).report)


def upgraded(made: Image, older: Image) -> Any:
    """A report that passes `PLAN` with an upgrade from an older image."""
    plain = report(made)
    last = replace(plain.instances[0], name="tiny-upgraded", upgraded_from=older.digest, checks=results())
    return replace(plain, instances=(*plain.instances, last), older=Older(older.digest, made.config))


def test_an_image_is_unpacked_launched_and_read_in_this_order(bench: Bench) -> None:
    tested = bench.test()
    assert bench.journal.names == ["lower_folders", "smoke", "lower_folders", "read_contents"]
    assert tested.report.passed and not tested.reused
    assert tested.evidence == replace(evidence(image()), contents=CONTENTS, report=tested.report)


def test_a_verdict_that_passed_is_reused_and_nothing_is_unpacked_or_launched(bench: Bench) -> None:
    first = bench.test()
    bench.journal.calls.clear()
    again = bench.test()
    assert again.reused and bench.journal.calls == []
    assert (again.report, again.evidence) == (first.report, first.evidence)


def test_another_image_plan_or_runtime_is_another_question(bench: Bench) -> None:
    bench.test()
    bench.test(image(created=1_800_000_000))
    bench.test(plan=replace(PLAN, instances=1, variants=()))
    bench.runtime = "crun 1.8"
    bench.test()
    assert bench.launches == 4
    assert bench.test().reused and bench.launches == 4


def test_a_verdict_on_a_tree_that_turns_out_to_be_damaged_counts_no_more(bench: Bench) -> None:
    bench.test()
    tree = bench.store.trees.path(image().layers[0].diff_id)
    tree.mkdir(parents=True)  # Without a seal: neither it nor what it was made of can be told.
    assert not bench.store.trees.reads_back(image().layers[0].diff_id)
    assert bench.test().reused, "nothing says that its content was another"
    with bench.store.temporary("tree") as folder:
        (folder / "tree" / "root").mkdir(parents=True)
        kept = bench.store.trees.keep(folder / "tree", image().layers[0].diff_id, {"file": "another"})
    assert not bench.store.trees.reads_back(image().layers[0].diff_id) and not kept.exists()
    bench.journal.calls.clear()
    assert not bench.test().reused
    assert bench.journal.names == ["lower_folders", "smoke", "lower_folders", "read_contents"]
    assert bench.test().reused


DAMAGED = image().layers[0].diff_id
UPGRADE = replace(PLAN, upgrade_from="older")


@pytest.fixture
def older(bench: Bench, journal: Journal, tmp_path: Path) -> Image:
    """The image in the folder that `UPGRADE` names; tests of upgrades from it pass."""
    made = plain_image("old", "old/base")
    journal.stand_in(launch, launch.load_layout_image, lambda path, store: made)
    (tmp_path / "older").mkdir()
    bench.verdict = lambda tested: upgraded(tested, made)
    return made


@pytest.mark.parametrize("verdict", [report, failed])
def test_a_test_on_a_tree_that_is_found_to_be_damaged_meanwhile_is_no_evidence(bench: Bench, verdict: Any) -> None:
    """Another process reads the tree while instances run, and notes what the disk has changed."""

    def note(made: Image) -> Any:
        bench.store.trees._note_damage(DAMAGED.hex)
        return verdict(made)

    bench.verdict = note
    with pytest.raises(VerificationError, match="while the image was tested") as caught:
        bench.test()
    assert caught.value.code == "diff-id-mismatch" and caught.value.problems[0].hint
    bench.verdict = report
    assert not bench.test().reused and bench.test().reused


@pytest.fixture
def damaging(bench: Bench, journal: Journal) -> None:
    """The first contents are read of a tree that another process finds to be damaged meanwhile."""
    read: list[Image] = []

    def read_contents(made: Image, lowers: Any) -> Any:
        read.append(made)
        if len(read) > 1:
            return CONTENTS
        bench.store.trees._note_damage(DAMAGED.hex)
        return replace(CONTENTS, version="damaged")

    journal.stand_in(layers, layers.read_contents, read_contents)


@pytest.mark.usefixtures("damaging")
def test_contents_of_a_tree_that_is_found_to_be_damaged_meanwhile_are_no_evidence(bench: Bench) -> None:
    with pytest.raises(VerificationError, match="while the image was tested"):
        bench.test()
    again = bench.test()
    assert not again.reused and again.evidence is not None and again.evidence.contents == CONTENTS


def test_a_verdict_that_counts_no_more_when_its_contents_were_read_is_not_reused(
    bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.test()
    monkeypatch.setattr(launch, "CONTENTS_FORMAT", -1)
    request.getfixturevalue("damaging")
    again = bench.test()
    assert not again.reused and again.evidence is not None and again.evidence.contents == CONTENTS


def test_a_tree_that_is_found_to_be_damaged_before_the_test_is_unpacked_again(bench: Bench, journal: Journal) -> None:
    """As one whose content a power cut has taken, which is read once after the restart."""
    noted: list[bool] = []

    def unpack(found: Any, **more: Any) -> tuple[Path, ...]:
        if not noted:
            bench.store.trees._note_damage(DAMAGED.hex)
        noted.append(True)
        return (Path(f"/trees/{len(noted)}"),)

    journal.stand_in(layers, layers.lower_folders, unpack)
    assert bench.test().evidence is not None
    assert journal.last(smoke.smoke).args[1] == (Path("/trees/2"),)
    assert bench.test().reused


@pytest.mark.parametrize(("times", "tested"), [(2, True), (3, False), (99, False)])
def test_trees_that_the_disk_damages_again_and_again_are_unpacked_three_times(
    bench: Bench, journal: Journal, times: int, tested: bool
) -> None:
    unpacked: list[Any] = []

    def unpack(found: Any, **more: Any) -> tuple[Path, ...]:
        unpacked.append(found)
        if len(unpacked) <= times:
            bench.store.trees._note_damage(DAMAGED.hex)
        return (Path("/trees/base"),)

    journal.stand_in(layers, layers.lower_folders, unpack)
    if tested:
        assert bench.test().evidence is not None and bench.launches == 1
        return
    with pytest.raises(VerificationError, match="unpacked 3 times") as caught:
        bench.test()
    (problem,) = caught.value.problems
    assert problem.code == "diff-id-mismatch" and len(unpacked) == 3 and bench.launches == 0
    assert f"layer '{image().layers[0].name}'" in problem.message
    assert str(bench.store.trees.path(DAMAGED)) in problem.message
    assert f"the disk of the store '{bench.store.root}'" in (problem.hint or "")
    assert "relbuild store fsck" in (problem.hint or "")
    assert bench.store.trees.damages(DAMAGED) == 3, "no more marks are left than it looked"


def test_an_older_images_tree_that_is_damaged_again_and_again_is_named(
    bench: Bench, journal: Journal, older: Image, tmp_path: Path
) -> None:
    def unpack(found: Any, **more: Any) -> tuple[Path, ...]:
        if found == older.layers:
            bench.store.trees._note_damage(older.layers[0].diff_id.hex)
        return (Path("/trees/base"),)

    journal.stand_in(layers, layers.lower_folders, unpack)
    with pytest.raises(VerificationError, match="layer 'old/base'") as caught:
        bench.test(plan=UPGRADE, folder=tmp_path)
    assert str(bench.store.trees.path(older.layers[0].diff_id)) in caught.value.problems[0].message


def test_a_verdict_on_an_older_images_damaged_tree_counts_no_more(bench: Bench, older: Image, tmp_path: Path) -> None:
    assert not bench.test(plan=UPGRADE, folder=tmp_path).reused
    bench.store.trees._note_damage(older.layers[0].diff_id.hex)
    assert not bench.test(plan=UPGRADE, folder=tmp_path).reused
    assert bench.test(plan=UPGRADE, folder=tmp_path).reused


class Unidentified(SandboxLauncher):
    @property
    def identified(self) -> bool:
        return False


def test_a_launcher_that_cannot_tell_its_runtime_reuses_no_verdict(bench: Bench) -> None:
    sandboxes: Any = Unidentified(SimpleNamespace(runtime=bench.runtime))  # type: ignore[arg-type]
    bench.test(sandboxes=sandboxes)
    assert not bench.test(sandboxes=sandboxes).reused and bench.launches == 2


def test_who_asks_again_gets_a_new_verdict(bench: Bench) -> None:
    bench.test()
    assert not bench.test(again=True).reused and bench.launches == 2


def test_a_verdict_that_did_not_pass_is_kept_by_nobody_and_is_no_evidence(bench: Bench) -> None:
    bench.verdict = failed
    tested = bench.test()
    assert not tested.report.passed and tested.evidence is None
    assert "read_contents" not in bench.journal.names
    bench.verdict = report
    assert bench.test().report.passed and bench.launches == 2


@pytest.mark.parametrize(("verdict", "reused"), [(report, True), (failed, False)])
def test_a_port_on_the_loopback_alone_is_warned_of_also_when_the_verdict_is_recalled(
    bench: Bench, verdict: Any, reused: bool
) -> None:
    noted = (LoopbackPort(80, ("127.0.0.1",)),)
    bench.verdict = lambda made: with_report_instance(verdict(made), loopback_ports=noted)
    first, second = Told(), Told()
    assert not bench.test(progress=first).reused
    assert bench.test(progress=second).reused is reused
    assert first.warnings == second.warnings == list(loopback_warnings(bench.verdict(image()), "tiny"))
    assert len(first.warnings) == 1 and first.warnings[0].startswith("tiny: the exposed port 80/tcp listens on 127.0")


def with_report_instance(made: Any, **changes: Any) -> Any:
    """The report with something else in its first instance."""
    first, *others = made.instances
    return replace(made, instances=(replace(first, **changes), *others))


def test_a_launch_that_the_machine_could_not_do_leaves_no_verdict(bench: Bench, journal: Journal) -> None:
    def lacking(*given: Any, **more: Any) -> None:
        raise EnvironmentLacking("runtime-missing", "there is none")

    journal.stand_in(smoke, smoke.smoke, lacking)
    with pytest.raises(EnvironmentLacking):
        bench.test()
    journal.stand_in(smoke, smoke.smoke, bench._smoke)
    assert not bench.test().reused


def test_what_a_store_keeps_in_another_form_is_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.test()
    recall = Store.recall

    def spoiled(store: Store, name: Digest) -> object:
        known = recall(store, name)
        return ["no report"] if isinstance(known, dict) and "instances" in known else known

    monkeypatch.setattr(Store, "recall", spoiled)
    assert not bench.test().reused and bench.launches == 2


def test_contents_are_read_once_and_told_under_the_name_of_who_asks(bench: Bench) -> None:
    bench.test()
    named = replace(image(), name="other")
    tested = bench.test(named, again=True)
    assert bench.journal.names.count("read_contents") == 1
    assert tested.evidence is not None and tested.evidence.contents == replace(CONTENTS, name="other")


def test_neighbours_are_tested_only_when_all_is_asked_and_evidence_says_whether_it_was(bench: Bench) -> None:
    plan = replace(PLAN, neighbours=Neighbours(count=2))
    quick = bench.test(plan=plan)
    assert bench.journal.last(smoke.smoke).args[2] == PLAN
    assert quick.evidence is not None and not quick.evidence.full
    whole = bench.test(plan=plan, full=True)
    assert bench.journal.last(smoke.smoke).args[2] == plan and not whole.reused
    assert bench.test().evidence == replace(quick.evidence, full=True), "there is nothing more in this plan"


def test_the_older_image_is_unpacked_too_and_another_one_is_another_question(
    bench: Bench, journal: Journal, older: Image, tmp_path: Path
) -> None:
    bench.test(plan=UPGRADE, folder=tmp_path)
    found, lowers = journal.last(smoke.smoke).options["older"]
    assert found is older and lowers == (Path("/trees/old/base"),)
    assert bench.test(plan=UPGRADE, folder=tmp_path).reused
    journal.stand_in(launch, launch.load_layout_image, lambda path, store: plain_image("old", "old/other"))
    assert not bench.test(plan=UPGRADE, folder=tmp_path).reused


def test_an_older_image_that_is_not_there_is_told_before_anything_is_unpacked(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        bench.test(plan=replace(PLAN, upgrade_from="older"), folder=tmp_path)
    assert caught.value.code == "upgrade-from-missing" and bench.journal.calls == []


def test_an_older_image_outside_of_the_recipes_folder_is_refused(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "older").symlink_to(tmp_path)
    with pytest.raises((RecipeError, VerificationError)) as caught:
        bench.test(plan=replace(PLAN, upgrade_from="older"), folder=tmp_path / "recipes")
    assert caught.value.code == "path-escapes"


def test_an_image_without_a_recipe_is_asked_what_any_image_can_be_asked() -> None:
    plan = launch.default_smoke_plan(plain_image(exposed_ports=("53/udp", "8080/tcp", "9090/tcp")))
    assert plan.ready is not None and plan.ready.port == 8080
    assert [check.kind for check in plan.checks] == [CheckKind.LISTENING, CheckKind.STOP]
    assert launch.default_smoke_plan(plain_image()).ready is None


def test_an_emulated_image_has_longer_and_the_report_has_the_recipes_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SmokePlan] = []
    slower: list[tuple[int, int]] = []
    whole = replace(PLAN, neighbours=Neighbours())

    def side_by_side(smoke_run: Any, roles: Any) -> tuple[()]:
        seen.append(smoke_run.plan)
        slower.append((smoke_run.context().slowdown, 0))
        return ()

    def measured(made: Any, lowers: Any, plan: SmokePlan, **more: Any) -> tuple[()]:
        assert plan == seen[-1]
        slower[-1] = (slower[-1][0], more["slowdown"])
        return ()

    monkeypatch.setattr(smoke_module, "_side_by_side", side_by_side)
    monkeypatch.setattr(smoke_module, "measure_neighbours", measured)
    sandboxes: Any = SimpleNamespace(runtime="runc 1")
    for emulator in ("qemu", ""):
        report = smoke_module.smoke(image(), (), whole, sandboxes=sandboxes, clock=lambda: 0, emulator=emulator)
        assert (report.asked, report.plan, report.emulator) == (whole, plan_digest(whole), emulator)
    emulated, native = seen
    assert native == whole
    assert slower == [(EMULATION_SLOWDOWN, EMULATION_SLOWDOWN), (1, 1)]
    assert PLAN.ready is not None and emulated.ready is not None
    assert emulated.ready.within == PLAN.ready.within * EMULATION_SLOWDOWN
    assert [one.within for one in emulated.checks] == [one.within * EMULATION_SLOWDOWN for one in PLAN.checks]
    assert emulated.limits == PLAN.limits


def test_a_verdict_under_an_emulator_counts_under_the_same_one_alone(bench: Bench, journal: Journal) -> None:
    by = {"now": "qemu 7"}
    journal.stand_in(sandbox, sandbox.emulator_label, lambda architecture: by["now"])
    assert not bench.test().reused
    assert bench.test().reused
    for other in ("qemu 8", ""):
        by["now"] = other
        assert not bench.test().reused
