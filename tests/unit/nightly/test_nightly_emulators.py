"""An emulator is an input of the tests that run under it, and none of those that run without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking
from pipeline.model.absolute_path import absolute
from pipeline.nightly import inputs, snapshot
from pipeline.nightly.inputs import TEST_INPUTS, emulator_inputs
from pipeline.sandbox import Emulator
from tests.support.builds import PLATFORM
from tests.support.journal import Journal
from tests.support.planned_nights import Nights

NATIVE: dict[str, str] = {}
OLD = {"arm64": "qemu-aarch64 7.2.22", "s390x": "qemu-s390x 7.2.22"}
NEW = {name: label.replace("7.2", "8.1") for name, label in OLD.items()}


class Machine:
    """The machine that plans: OCI's names of the architectures that it emulates, and those that it cannot run."""

    def __init__(self, journal: Journal) -> None:
        self.emulators, self.lacking = OLD, {"riscv64"}
        journal.stand_in(inputs, inputs.emulator_label, self._label)

    def _label(self, architecture: str) -> str:
        if architecture in self.lacking:
            raise EnvironmentLacking("architecture-foreign", "this machine cannot")
        return self.emulators.get(architecture, "")


@pytest.fixture
def machine(journal: Journal) -> Machine:
    return Machine(journal)


def test_what_runs_by_itself_or_not_at_all_has_no_such_input(machine: Machine) -> None:
    assert emulator_inputs(("x86_64", "riscv64")) == {}
    assert "emulator" in TEST_INPUTS


def test_each_emulated_architecture_counts_in_any_order(machine: Machine) -> None:
    expected = {"emulator": "aarch64: qemu-aarch64 7.2.22, s390x: qemu-s390x 7.2.22"}
    assert emulator_inputs(("x86_64", "s390x", "aarch64")) == emulator_inputs(("aarch64", "s390x")) == expected


@pytest.mark.parametrize(("before", "now"), [(OLD, NEW), (NATIVE, NEW), (OLD, NATIVE)])
def test_a_night_tests_an_image_again_under_another_emulator(
    before: dict[str, str], now: dict[str, str], machine: Machine, tmp_path: Path, journal: Journal
) -> None:
    nights = Nights(tmp_path, journal)
    nights.change("repositories.yaml", "[x86_64]", "[x86_64, aarch64]")
    nights.change("base.yaml", "architectures: [x86_64]", "architectures: [aarch64]")
    machine.emulators = before
    nights.publish()
    assert nights.decide().job is None
    machine.emulators = now
    job = nights.decide().job
    assert job is not None and job.test_only and job.why == "the emulator of the tests changed"


def test_native_images_are_not_tested_again_for_an_emulator(machine: Machine, tmp_path: Path, journal: Journal) -> None:
    nights = Nights(tmp_path, journal)
    nights.publish()
    machine.emulators = NEW
    assert nights.decide().job is None


def test_an_emulators_file_is_watched_between_nights(tmp_path: Path, journal: Journal) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_bytes(b"7.2")
    journal.stand_in(
        snapshot,
        snapshot.find_emulator,
        lambda architecture: None if architecture == "amd64" else Emulator(str(qemu), True, "qemu"),
    )
    journal.stand_in(snapshot, snapshot.find_runtime, gives=SimpleNamespace(path=tmp_path / "runc"))

    def programs(*architectures: str) -> tuple[Any, ...]:
        states = [SimpleNamespace(platform=PLATFORM, arch=arch, repositories=()) for arch in architectures]
        planner: Any = SimpleNamespace(
            settings=SimpleNamespace(repositories=absolute(tmp_path / "r.yaml"), locked=True, runtime=None),
            catalogue=SimpleNamespace(entries=(), left_out=()),
            platform_states=states,
            build_env=SimpleNamespace(environment={}),
        )
        seen = snapshot.night_snapshot(planner, (), (), Digest.of(b"made"), lambda url, limit: b"")
        assert seen is not None
        return seen.programs

    emulated = programs("x86_64", "aarch64")
    assert [path for path, _ in emulated].count(str(qemu)) == 1
    assert str(qemu) not in [path for path, _ in programs("x86_64")]
    qemu.write_bytes(b"8.1.0")
    assert programs("x86_64", "aarch64") != emulated
