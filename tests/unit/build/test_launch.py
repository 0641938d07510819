"""Launching images: which verdict counts again, what is kept of a test, and what a person's run is made of."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import launch, layers, sandbox, smoke
from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, RecipeError, UsageError, VerificationError
from pipeline.launch import (
    HostMount,
    ImageRun,
    PublishedPort,
    RunOptions,
)
from pipeline.model.checks import CheckKind
from pipeline.model.evidence import Contents, PackageLicense
from pipeline.model.image import Image
from pipeline.model.limits import Limits
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import Older
from pipeline.model.smoke import Neighbours, SmokePlan
from pipeline.progress import QUIET
from pipeline.sandbox import EMULATION_SLOWDOWN
from pipeline.sandbox.launchers.launcher import SandboxLauncher
from pipeline.sandbox.port_forwarding import reserve_port
from pipeline.smoke import run as smoke_module
from pipeline.store import Store
from tests.support.builds import image as plain_image
from tests.support.journal import Journal
from tests.support.tested_images import (
    PLAN,
    RUNTIME,
    evidence,
    image,
    report,
    results,
    with_instance,
)

CONTENTS = Contents("tiny", "1.0", "amd64", (PackageLicense("bash-5.2-1.x86_64", "GPLv3+"),))


class Bench:
    """A store, and stand-ins for what unpacks, launches and reads images."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self.store, self.journal = store, journal
        self.runtime = RUNTIME
        self.verdict: Any = report
        journal.stand_in(
            layers, layers.lower_folders, lambda found, **more: tuple(Path("/trees") / one.name for one in found)
        )
        journal.stand_in(smoke, smoke.smoke, self._smoke)
        journal.stand_in(layers, layers.read_contents, lambda made, lowers: replace(CONTENTS, name=made.name))

    def _smoke(self, made: Image, lowers: Any, plan: SmokePlan, **more: Any) -> Any:
        found = self.verdict(made)
        return replace(found, plan=plan_digest(plan), asked=plan, runtime=self.runtime)

    def test(self, made: Image | None = None, plan: SmokePlan = PLAN, **more: Any) -> launch.SmokeResult:
        sandboxes: Any = SimpleNamespace(runtime=self.runtime)
        given = {"store": self.store, "sandboxes": sandboxes, "progress": QUIET, "clock": lambda: 0.0, **more}
        return launch.run_tests(made or image(), plan, **given)

    @property
    def launches(self) -> int:
        return len(self.journal.of(smoke.smoke))


def failed(made: Image) -> Any:
    return replace(with_instance(evidence(made), 0, checks=()).report)


def upgraded(made: Image, older: Image) -> Any:
    """A report that passes `PLAN` with an upgrade from an older image."""
    plain = report(made)
    last = replace(plain.instances[0], name="tiny-upgraded", upgraded_from=older.digest, checks=results())
    return replace(plain, instances=(*plain.instances, last), older=Older(older.digest, made.config))


@pytest.fixture
def bench(store: Store, journal: Journal) -> Bench:
    return Bench(store, journal)


# --- which verdict counts ----------------------------------------------------------------------------------


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


# --- upgrading ---------------------------------------------------------------------------------------------


def test_the_older_image_is_unpacked_too_and_another_one_is_another_question(
    bench: Bench, journal: Journal, tmp_path: Path
) -> None:
    older = plain_image("old", "old/base")
    journal.stand_in(launch, launch.load_layout_image, lambda path, store: older)
    (tmp_path / "older").mkdir()
    bench.verdict = lambda made: upgraded(made, older)
    plan = replace(PLAN, upgrade_from="older")
    bench.test(plan=plan, folder=tmp_path)
    found, lowers = journal.last(smoke.smoke).options["older"]
    assert found is older and lowers == (Path("/trees/old/base"),)
    assert bench.test(plan=plan, folder=tmp_path).reused
    journal.stand_in(launch, launch.load_layout_image, lambda path, store: plain_image("old", "old/other"))
    assert not bench.test(plan=plan, folder=tmp_path).reused


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


# --- an image without a recipe -----------------------------------------------------------------------------


def test_an_image_without_a_recipe_is_asked_what_any_image_can_be_asked() -> None:
    plan = launch.default_smoke_plan(plain_image(exposed_ports=("53/udp", "8080/tcp", "9090/tcp")))
    assert plan.ready is not None and plan.ready.port == 8080
    assert [check.kind for check in plan.checks] == [CheckKind.LISTENING, CheckKind.STOP]
    assert launch.default_smoke_plan(plain_image()).ready is None


# --- run for a person --------------------------------------------------------------------------------------


@dataclass
class Running:
    """An instance that runs until it is stopped, or as often as it is asked."""

    name: str
    journal: Journal
    alive: bool = True
    exit_code: int | None = None
    obeys: bool = True
    shells: dict[str, int] = field(default_factory=dict)
    pid: int = 77

    def wait(self, timeout: float) -> int | None:
        self.journal.note("wait", self.name, timeout)
        return self.exit_code

    def stop(self, signal: str, within: float) -> None:
        self.journal.note("stop", self.name, signal, within)
        self.alive = not self.obeys

    def kill(self) -> None:
        self.journal.note("kill", self.name)
        self.alive = False

    @property
    def main_user(self) -> tuple[int, int]:
        return 27, 28

    @property
    def files(self) -> Any:
        def stat(path: str) -> os.stat_result | None:
            mode = self.shells.get(path)
            return None if mode is None else os.stat_result((mode, 0, 0, 0, 0, 0, 0, 0, 0, 0))

        return SimpleNamespace(stat=stat)


@pytest.fixture
def started(bench: Bench, journal: Journal) -> list[Running]:
    """What `run_image` launches; each in a network, with its end in the journal."""
    instances: list[Running] = []

    @contextmanager
    def opened(**more: Any) -> Iterator[str]:
        with journal.held("network"):
            yield "network"

    @contextmanager
    def begun(config: Any, lowers: Any, limits: Any, **more: Any) -> Iterator[Running]:
        with journal.held(more["name"]):
            instances.append(Running(more["name"], journal))
            yield instances[-1]

    @contextmanager
    def reserved(host: int) -> Iterator[Any]:
        with journal.held(f"port {host}"):
            yield SimpleNamespace(host=host, close=lambda: journal.note(f"close {host}"))

    @contextmanager
    def forwarded(instance: Running, listening: Any, container: int) -> Iterator[int]:
        with journal.held(f"port {listening.host} of {instance.name}"):
            yield listening.host or 40_000

    journal.stand_in(sandbox, sandbox.open_network, opened)
    journal.stand_in(sandbox, sandbox.launch, begun)
    journal.stand_in(sandbox, sandbox.reserve_port, reserved)
    journal.stand_in(sandbox, sandbox.publish_port, forwarded)
    return instances


def run(bench: Bench, order: RunOptions, follow: Any = lambda name, text: None) -> Any:
    sandboxes: Any = SimpleNamespace(runtime=RUNTIME)
    return launch.run_image(image(), order, store=bench.store, sandboxes=sandboxes, progress=QUIET, follow=follow)


def test_instances_share_a_network_and_each_has_its_name_ports_and_output(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    heard: list[tuple[str, bytes]] = []
    order = RunOptions(2, Limits(pids=5), (PublishedPort(8000, 80), PublishedPort(0, 53)), environment={"A": "b"})
    with run(bench, order, lambda name, text: heard.append((name, text))) as running:
        assert [one.name for one in running.instances] == ["tiny-1", "tiny-2"]
        assert running.ports == (((8000, 80), (40_000, 53)), ((8001, 80), (40_000, 53)))
        assert running.stop_signal == "SIGQUIT"
        for call in journal.of(sandbox.launch):
            assert call.args[1:] == ((Path("/trees/base"),), Limits(pids=5))
            assert call.options["network"] == "network" and call.options["environment"] == {"A": "b"}
            call.options["follow"](b"hello")
    assert heard == [("tiny-1", b"hello"), ("tiny-2", b"hello")]
    ends = [name for name in journal.names if name.startswith("give")]
    assert ends[-5] == "give network" and ends.index("give tiny-2") < ends.index("give tiny-1")
    assert ends.index("give port 8000 of tiny-1") < ends.index("give tiny-1")


def test_what_was_launched_ends_when_a_later_one_cannot_be(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    def taken(*given: Any) -> None:
        raise UsageError("no-address", "it has no network")

    journal.stand_in(sandbox, sandbox.publish_port, taken)
    with pytest.raises(UsageError), run(bench, RunOptions(2, publish=(PublishedPort(80, 80),))):
        pytest.fail("it runs")
    assert journal.names[-7:] == [
        *("publish_port", "close 80", "close 81", "give tiny-1"),
        *("give network", "give port 81", "give port 80"),
    ]


def test_ports_that_wait_for_an_instance_are_closed_before_others_are_ended_where_it_cannot_be_launched(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    launched = sandbox.launch

    def second_fails(*given: Any, **more: Any) -> Any:
        if len(started) == 1:
            raise EnvironmentLacking("runtime-missing", "there is none")
        return launched(*given, **more)

    journal.stand_in(sandbox, sandbox.launch, second_fails)
    publish = (PublishedPort(80, 80), PublishedPort(90, 90))
    with pytest.raises(EnvironmentLacking), run(bench, RunOptions(3, publish=publish)):
        pytest.fail("it runs")
    ends = [name for name in journal.names if name.startswith(("close", "give"))]
    assert ends[:4] == ["close 81", "close 91", "close 82", "close 92"], "not those of the first, which is alive"
    assert ends.index("give port 80 of tiny-1") < ends.index("give tiny-1")


def test_a_run_is_configured_when_its_ports_are_reserved_and_before_anything_is_unpacked(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    def edited(plain: RunOptions) -> RunOptions:
        journal.note("edit")
        return replace(plain, name="mine", environment={"A": "b"})

    sandboxes: Any = SimpleNamespace(runtime=RUNTIME)
    given: dict[str, Any] = {"sandboxes": sandboxes, "progress": QUIET, "follow": lambda name, text: None}
    order = RunOptions(publish=(PublishedPort(80, 80),))
    with launch.run_image(image(), order, store=bench.store, **given, configured=edited) as running:
        assert [one.name for one in running.instances] == ["mine"]
        assert journal.last(sandbox.launch).options["environment"] == {"A": "b"}
    names = journal.names
    assert names.index("take port 80") < names.index("edit") < names.index("lower_folders")


def test_a_port_that_is_taken_is_told_before_an_editor_is_opened(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        journal.stand_in(sandbox, sandbox.reserve_port, reserve_port)
        order = RunOptions(publish=(PublishedPort(taken.getsockname()[1], 80),))
        given: dict[str, Any] = {"sandboxes": None, "progress": QUIET, "follow": lambda name, text: None}
        opened: Any = lambda plain: pytest.fail("the editor is opened")  # noqa: E731
        with (
            pytest.raises(EnvironmentLacking) as refused,
            launch.run_image(image(), order, store=bench.store, **given, configured=opened),
        ):
            pytest.fail("it runs")
    assert refused.value.code == "port-unavailable"


def test_a_port_that_is_taken_is_told_before_anything_is_unpacked_or_launched(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        journal.stand_in(sandbox, sandbox.reserve_port, reserve_port)
        order = RunOptions(publish=(PublishedPort(0, 80), PublishedPort(port, 80)))
        with pytest.raises(EnvironmentLacking) as refused, run(bench, order):
            pytest.fail("it runs")
    (problem,) = refused.value.problems
    assert problem.code == "port-unavailable" and f"ss -ltnp 'sport = :{port}'" in (problem.hint or "")
    assert set(journal.names) == {"reserve_port"} and started == []


def test_a_port_after_the_last_one_is_refused(bench: Bench, journal: Journal, started: list[Running]) -> None:
    journal.stand_in(sandbox, sandbox.reserve_port, reserve_port)
    with pytest.raises(UsageError) as refused, run(bench, RunOptions(2, publish=(PublishedPort(65535, 80),))):
        pytest.fail("it runs")
    assert refused.value.code == "port-too-high" and "65536" in str(refused.value)


def test_a_named_volume_is_each_instances_own_and_a_folder_is_shared(
    bench: Bench, journal: Journal, started: list[Running], tmp_path: Path
) -> None:
    mounts = (HostMount("data", "/data", named=True), HostMount(str(tmp_path), "/conf", read_only=True))
    with run(bench, RunOptions(2, mounts=mounts)):
        first, second = (call.options["bindings"] for call in journal.of(sandbox.launch))
    assert [one[0].source for one in (first, second)] == [bench.store.volume("data-1"), bench.store.volume("data-2")]
    assert first[0].begun and not first[0].read_only
    assert first[1] == second[1] and (first[1].source, first[1].read_only) == (tmp_path, True)


def test_a_file_that_is_not_there_is_told_and_not_made(
    bench: Bench, journal: Journal, started: list[Running], tmp_path: Path
) -> None:
    missing = HostMount(str(tmp_path / "gone"), "/gone")
    with pytest.raises(UsageError) as caught, run(bench, RunOptions(mounts=(missing,))):
        pytest.fail("it runs")
    assert caught.value.code == "file-missing" and not (tmp_path / "gone").exists()
    assert journal.names[-1] == "give network" and started == []


def test_stopping_sends_the_images_signal_to_all_and_kills_who_does_not_obey(journal: Journal) -> None:
    good, bad = Running("a", journal), Running("b", journal, obeys=False)
    instances: Any = (good, bad)
    ImageRun(instances, (), "SIGQUIT").stop(within=lambda: 0.0)
    assert sorted(call.args for call in journal.calls if call.name == "stop") == [
        ("a", "SIGQUIT", 0.0),
        ("b", "SIGQUIT", 0.0),
    ]
    assert [call.args for call in journal.calls if call.name == "kill"] == [("b",)]


def test_waiting_ends_when_all_have_ended_and_the_first_bad_exit_code_counts(journal: Journal) -> None:
    ended, running = Running("a", journal, alive=False, exit_code=0), Running("b", journal)
    instances: Any = (ended, running)
    both = ImageRun(instances, (), "")
    assert not both.wait(0.5) and journal.calls[-1].args == ("b", 0.5)
    running.alive, running.exit_code = False, 3
    assert both.wait(0.5) and both.exit_code == 3
    running.exit_code = 0
    assert both.exit_code == 0


@pytest.mark.parametrize(
    ("shells", "found"),
    [
        ({"/bin/sh": 0o100755, "/bin/bash": 0o100755}, "/bin/bash"),
        ({"/usr/bin/bash": 0o100644, "/usr/bin/sh": 0o100755}, "/usr/bin/sh"),
        ({}, None),
    ],
)
def test_a_person_enters_with_the_images_shell_or_the_hosts(
    shells: dict[str, int], found: str | None, journal: Journal
) -> None:
    instance: Any = Running("a", journal, shells=shells)
    command = launch.enter_command(instance)
    assert command[:3] == ("nsenter", "--target", "77")
    if found:
        assert command[-6:] == ("--setuid", "27", "--setgid", "28", "--", found) and "--root" in command
    else:
        assert command[-1] == "/bin/sh" and "--root" not in command and "--mount" not in command


# --- recorded ----------------------------------------------------------------------------------------------


def test_a_draft_of_checks_is_made_from_one_instance_under_the_plans_limits(
    bench: Bench, journal: Journal, started: list[Running]
) -> None:
    journal.stand_in(smoke, smoke.draft_checks, lambda instance, *given, **more: f"checks of {instance.name}")
    sandboxes: Any = SimpleNamespace(runtime=RUNTIME)
    told = launch.draft_smoke_checks(
        image(), PLAN, store=bench.store, sandboxes=sandboxes, progress=QUIET, settling=2.0
    )
    assert told == "checks of tiny-record" and journal.last(sandbox.launch).args[2] == PLAN.limits
    assert journal.last(smoke.draft_checks).options["settling"] == 2.0
    assert journal.names[-1] == "give tiny-record"


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
