"""What a person's run of an image is made of: ports, volumes, ends, a shell, a draft of checks."""

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

from pipeline import launch, sandbox, smoke
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.launch import (
    HostMount,
    ImageRun,
    PublishedPort,
    RunOptions,
)
from pipeline.model.limits import Limits
from pipeline.progress import QUIET
from pipeline.sandbox.port_forwarding import reserve_port
from tests.support.journal import Journal
from tests.support.launch_stand_ins import Bench
from tests.support.tested_images import (
    PLAN,
    RUNTIME,
    image,
)


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


def test_a_device_is_not_mounted(bench: Bench, started: list[Running]) -> None:
    """The kernel refuses it with EINVAL, of which nothing can be learned."""
    with pytest.raises(UsageError) as caught, run(bench, RunOptions(mounts=(HostMount("/dev/null", "/etc/x"),))):
        pytest.fail("it runs")
    assert caught.value.code == "bind-impossible" and started == []


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
