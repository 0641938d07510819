"""An image's life: two side by side, restarts on the same data, variants, upgrades, neighbours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.checks import CheckKind
from pipeline.model.checks.file_check import FileFacts
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.checks.process_check import ProcessFacts
from pipeline.model.checks.restart_check import Restart
from pipeline.model.image import Image, ImageConfig
from pipeline.model.limits import Limits
from pipeline.model.report import SmokeReport
from pipeline.model.smoke import Check, Expectation, Misbehaviour, Neighbours, SmokePlan, Variant
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.sandbox import SandboxRegistry, find_runtime, open_sandbox_registry
from pipeline.sandbox.cgroups import list_cgroups
from pipeline.smoke import neighbours as neighbours_module
from pipeline.smoke import report_lines, smoke
from pipeline.smoke.lifecycle import UnpackedImage
from tests.support.static_root import make_silent_root
from tests.support.tiny_root import require_groups, require_root

pytestmark = pytest.mark.brief

READY = Check("ready", CheckKind.PORT, 10_000, Expectation(exit_code=None), port=80)
STOP = Check("stops", CheckKind.STOP, 20_000)
LIMITS = Limits(milli_cpus=500, memory=32 << 20, pids=40, bandwidth=50_000_000)
PAGE = Check("page", CheckKind.HTTP, 20_000, Expectation(status=(Rule(equals="200"),)), subject=HttpRequest(80))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_root()
    folder = tmp_path_factory.mktemp("life")
    folder.chmod(0o700)
    return make_silent_root(folder / "root")


@pytest.fixture
def sandboxes(root: Path) -> Iterator[SandboxRegistry]:
    found = open_sandbox_registry(root.parent / "sandbox", find_runtime())
    yield found
    assert list((found.state / "live").iterdir()) == []
    assert list_cgroups(found.hierarchies, found.mark) == ()


@pytest.fixture
def examine(root: Path, sandboxes: SandboxRegistry) -> Callable[..., SmokeReport]:
    def run(plan: SmokePlan, image: Image | None = None, older: UnpackedImage | None = None) -> SmokeReport:
        return smoke(image or version("1"), [root], plan, sandboxes=sandboxes, clock=time.time, older=older)

    return run


def version(number: str, **changes: object) -> Image:
    config = ImageConfig(
        "amd64", 0, entrypoint=("/app", number), user="app", exposed_ports=("80/tcp",), volumes=("/data",)
    )
    return make_image("silent", number, replace(config, **changes), ())  # type: ignore[arg-type]


def started(times: int, name: str | None = None) -> Check:
    facts = FileFacts("/data/starts", text=(Rule(equals=str(times)),))
    return Check(name or f"start {times}", CheckKind.FILE, 20_000, subject=facts)


def log(pattern: str) -> Check:
    return Check(f"log {pattern}", CheckKind.LOG, 20_000, log=(Rule(matches=pattern),))


def restart(how: Restart = Restart.SAME_DATA) -> Check:
    return Check("restarts", CheckKind.RESTART, 20_000, subject=how)


def names(report: SmokeReport, number: int = 0) -> list[str]:
    return [f"{'+' if check.passed else '-'}{check.name}" for check in report.instances[number].checks]


@pytest.mark.parametrize("how", list(Restart))
def test_data_survives_a_restart_of_each_of_two(examine: Callable[..., SmokeReport], how: Restart) -> None:
    plan = SmokePlan(READY, (started(1), restart(how), started(2), log("start 2"), STOP), instances=2)
    report = examine(plan)
    assert report.passed, report_lines(report)
    for number in (0, 1):
        assert names(report, number) == ["+ready", "+start 1", "+restarts", "+start 2", "+log start 2", "+stops"]
    instance = report.instances[0]
    assert "[relbuild: restarted]" in instance.log
    measured = dict(instance.measured)
    assert {"stopped_after_ms", "ready_again_after_ms"} <= measured.keys()
    require_groups("measured usage")
    assert {"cpu_time", "peak_memory"} <= measured.keys()


def test_a_kill_that_the_plan_asks_for_is_not_named_as_what_went_wrong(examine: Callable[..., SmokeReport]) -> None:
    wrong = replace(started(7), within=50)
    report = examine(SmokePlan(READY, (wrong, restart(Restart.AFTER_KILL), STOP)))
    assert not report.passed
    assert names(report) == ["+ready", "-start 7", "+restarts", "+stops"]
    assert "SIGKILL" not in report.failure
    assert not report.instances[0].happened
    before_the_restart, *_ = report.instances[0].log.split("[relbuild: restarted]")
    assert "[relbuild: check 'start 7' failed " in before_the_restart


def test_data_that_is_not_in_a_volume_does_not_survive(examine: Callable[..., SmokeReport], root: Path) -> None:
    image = version("1", volumes=(), working_directory="/")
    report = examine(SmokePlan(READY, (started(1), restart(), started(2))), image)
    assert not report.passed  # the root is read-only, so it cannot even start
    assert "/data/starts" in report.instances[0].checks[0].detail


def test_one_that_does_not_stop_is_not_started_again(examine: Callable[..., SmokeReport]) -> None:
    image = version("1", stop_signal="SIGUSR1")
    report = examine(SmokePlan(READY, (replace(restart(), within=300), started(2), STOP)), image)
    assert names(report) == ["+ready", "-restarts", "-start 2", "-stops"]
    assert "still runs 300 ms after SIGUSR1" in report.instances[0].checks[1].detail
    assert report.instances[0].checks[2].detail == "skipped: the instance was not restarted"


def test_an_arbitrary_user_in_group_0_and_a_look_at_the_mounts(examine: Callable[..., SmokeReport]) -> None:
    plan = SmokePlan(READY, (started(1), STOP), variants=(Variant.ARBITRARY_UID, Variant.READ_ONLY))
    report = examine(plan)
    assert report.passed, report_lines(report)
    normal, arbitrary, read_only = report.instances
    assert (normal.role, read_only.role) == ("", "read-only")
    user = arbitrary.role.removeprefix("arbitrary-uid, as ").removesuffix(":0")
    assert int(user) >= 10_000 and f"uid {user}" in arbitrary.log
    assert "uid 27" in normal.log
    assert names(report, 2)[1] == "+nothing but volumes and scratch space can be written"


def test_an_image_for_one_user_only_fails_as_another(examine: Callable[..., SmokeReport], root: Path) -> None:
    (root / "data").chmod(0o700)
    try:
        report = examine(SmokePlan(READY, (started(1), STOP), variants=(Variant.ARBITRARY_UID,)))
    finally:
        (root / "data").chmod(0o770)
    assert [all(check.passed for check in instance.checks) for instance in report.instances] == [True, False]
    assert "Permission denied" in report.instances[1].checks[0].detail


def test_an_upgrade_starts_the_new_image_on_the_old_ones_data(examine: Callable[..., SmokeReport], root: Path) -> None:
    older = (version("1"), [root])
    checks = (log("version"), restart(), started(2), log("version 2, start 2"), STOP)
    plan = SmokePlan(READY, checks, upgrade_from="older")
    report = examine(plan, version("2"), older)
    assert report.passed, report_lines(report)
    upgraded = report.instances[1]
    assert upgraded.name == "silent-upgrade" and upgraded.role.startswith("upgrade from sha256:")
    assert "version 1, start 1" in upgraded.log and "version 2, start 2" in upgraded.log


def test_an_upgrade_without_a_restart_comes_before_all_checks(examine: Callable[..., SmokeReport], root: Path) -> None:
    plan = SmokePlan(READY, (log("version 2"), STOP), upgrade_from="older")
    report = examine(plan, version("2"), (version("1"), [root]))
    assert report.passed, report_lines(report)
    assert names(report, 1) == ["+ready", "+becomes the new image", "+log version 2", "+stops"]


@pytest.mark.alone
def test_neighbours_of_one_that_misbehaves_still_answer(examine: Callable[..., SmokeReport]) -> None:
    require_groups("misbehaving neighbours")
    neighbours = Neighbours(count=5, factor=400.0, lasting=700)
    report = examine(SmokePlan(READY, (PAGE,), LIMITS, neighbours=neighbours))
    assert [figures.misbehaviour for figures in report.neighbours] == [str(kind) for kind in Misbehaviour]
    for figures in report.neighbours:
        assert figures.passed, figures
        assert figures.asked >= 4 and figures.failed == 0
        assert 0 < figures.p50 <= figures.p99
        assert 0 < figures.quiet_p50 <= figures.quiet_p99
        assert re.search("used|killed|refused|sent", figures.effect), figures
    assert report.passed


@pytest.mark.alone
def test_neighbours_that_notice_too_much_fail_the_run(
    examine: Callable[..., SmokeReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_groups("misbehaving neighbours")
    measured = iter((1_000, 50_001))
    real = neighbours_module._measure

    def slower(*asked: object) -> object:
        return replace(real(*asked), latencies=(next(measured),))  # type: ignore[arg-type]

    monkeypatch.setattr(neighbours_module, "_measure", slower)
    neighbours = Neighbours(count=2, misbehave=(Misbehaviour.SPIN,), lasting=500)
    report = examine(SmokePlan(READY, (PAGE,), LIMITS, neighbours=neighbours))
    (figures,) = report.neighbours
    assert not figures.passed and not report.passed
    assert "latency rose from 1.0 ms to 50.0 ms, more than the limit of 50.0 ms" in figures.detail
    assert any("✗ neighbours while one does 'spin' (used" in line for line in report_lines(report))


def test_nobody_forks_without_a_limit(examine: Callable[..., SmokeReport]) -> None:
    neighbours = Neighbours(count=2, misbehave=(Misbehaviour.ALLOCATE,), lasting=100)
    report = examine(SmokePlan(READY, (PAGE,), Limits(), neighbours=neighbours))
    assert "needs the limit 'memory'" in report.neighbours[0].detail


def test_what_a_process_check_counts_is_the_instance_alone(examine: Callable[..., SmokeReport]) -> None:
    count = ProcessFacts(name="worker", count=(Rule(equals="2"),))
    plan = SmokePlan(READY, (Check("workers", CheckKind.PROCESS, 20_000, subject=count),), instances=3)
    assert examine(plan).passed


def test_a_failure_names_what_happened(examine: Callable[..., SmokeReport]) -> None:
    require_groups("memory")
    report = examine(SmokePlan(READY, (), Limits(memory=1 << 20, pids=40)))
    assert not report.passed
    told = " ".join(report_lines(report))
    assert "memory" in told or "could not be started" in told
