"""Throughput of volumes, in the files of both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.model.limit import FileSystemSize, LimitReading, VolumeRates
from pipeline.model.limits import Limits
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
from pipeline.sandbox.io_limits import lift_io_limits, limit_io, read_io_limits
from pipeline.sandbox.limit_readings import ObservedInstance, read_limits

DEVICES = [os.makedev(7, 0), os.makedev(7, 3)]
RATE = 8 << 20
BPS = "blkio.throttle.{}_bps_device"


def made(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).write_text("")
    return folder


@pytest.fixture
def v1(tmp_path: Path) -> Cgroup:
    """A group of a version 1 kernel; what is written to its files stands there as written last."""
    root = made(tmp_path / "blkio", BPS.format("read"), BPS.format("write"), "cgroup.sane_behavior")
    made(root / "relbuild" / "x", BPS.format("read"), BPS.format("write"))
    return Cgroup(Hierarchies({"blkio": root}), "x")


@pytest.fixture
def v2(tmp_path: Path) -> Cgroup:
    root = made(tmp_path / "unified")
    (root / "cgroup.controllers").write_text("cpu io memory pids\n")
    made(root / "relbuild" / "x", "io.max")
    return Cgroup(Hierarchies({}, root), "x")


def file(group: Cgroup, name: str, *, root: bool = False) -> Path:
    folder = group.folder("io")
    assert folder is not None or group.hierarchies.version == 1
    folder = folder or group.folder("blkio")
    assert folder is not None
    return (folder.parents[1] if root else folder) / name


def test_v2_is_told_and_read_in_io_max(v2: Cgroup, tmp_path: Path) -> None:
    limit_io(v2, tmp_path, DEVICES[:1], RATE)
    assert file(v2, "io.max").read_text() == f"7:0 rbps={RATE} wbps={RATE}"
    file(v2, "io.max").write_text(f"7:0 rbps={RATE} wbps={RATE} riops=max wiops=max\n")
    assert read_io_limits(v2, DEVICES[:1]) == VolumeRates(RATE, "")
    assert read_io_limits(v2, DEVICES) == VolumeRates(None, ""), "the other device has no limit"
    file(v2, "io.max").write_text(f"7:0 rbps={RATE} wbps=max riops=max wiops=max\n")
    assert read_io_limits(v2, DEVICES[:1]) == VolumeRates(None, "")
    lift_io_limits(v2, tmp_path)
    assert file(v2, "io.max").read_text() == "7:0 rbps=max wbps=max"


def test_v2_without_a_limit_is_not_told_anything(v2: Cgroup, tmp_path: Path) -> None:
    limit_io(v2, tmp_path, DEVICES, None)
    assert file(v2, "io.max").read_text() == ""


def test_v2_holds_writing_back_only_with_the_memory_controller(v2: Cgroup, tmp_path: Path) -> None:
    (tmp_path / "unified" / "cgroup.controllers").write_text("io\n")
    file(v2, "io.max").write_text(f"7:0 rbps={RATE} wbps={RATE} riops=max wiops=max\n")
    assert read_io_limits(v2, DEVICES[:1]).rate == RATE
    assert (
        "written back" not in read_io_limits(v2, DEVICES[:1]).why
        and "memory controller" in read_io_limits(v2, DEVICES[:1]).why
    )


def test_v1_holds_the_group_and_what_the_root_group_writes_back(v1: Cgroup, tmp_path: Path) -> None:
    limit_io(v1, tmp_path, DEVICES[:1], RATE)
    for place in (file(v1, BPS.format("read")), file(v1, BPS.format("write"))):
        assert place.read_text() == f"7:0 {RATE}"
    assert file(v1, BPS.format("write"), root=True).read_text() == f"7:0 {RATE}"
    assert file(v1, BPS.format("read"), root=True).read_text() == "", "others read what they like"
    assert read_io_limits(v1, DEVICES[:1]) == VolumeRates(RATE, "")
    assert read_io_limits(v1, DEVICES) == VolumeRates(None, "")


def test_v1_counts_without_a_limit_and_is_rid_of_an_old_one(v1: Cgroup, tmp_path: Path) -> None:
    limit_io(v1, tmp_path, DEVICES[:1], None)
    assert file(v1, BPS.format("write")).read_text() == f"7:0 {10**15}"
    assert file(v1, BPS.format("write"), root=True).read_text() == "7:0 0"
    assert read_io_limits(v1, DEVICES[:1]).rate is None


def test_v1_says_so_where_writing_back_is_not_held(v1: Cgroup, tmp_path: Path) -> None:
    limit_io(v1, tmp_path, DEVICES[:1], RATE)
    file(v1, BPS.format("write"), root=True).write_text("")
    assert "written back" not in read_io_limits(v1, DEVICES[:1]).why
    assert "write-back is not limited" in read_io_limits(v1, DEVICES[:1]).why
    file(v1, "cgroup.sane_behavior", root=True).unlink()
    found = read_io_limits(v1, DEVICES[:1])
    assert found.rate == RATE and "not visible" in found.why
    reading = reading_of(v1, found)
    assert (reading.read, reading.enforced) == (RATE, False)


def test_v1_lets_go_in_the_group_and_in_the_root_group(v1: Cgroup, tmp_path: Path) -> None:
    limit_io(v1, tmp_path, DEVICES[:1], RATE)
    lift_io_limits(v1, tmp_path)
    assert file(v1, BPS.format("read")).read_text() == f"7:0 {10**15}", "what follows is still counted"
    assert file(v1, BPS.format("write"), root=True).read_text() == "7:0 0"
    file(v1, BPS.format("write"), root=True).write_text("7:0 123456")
    lift_io_limits(v1, tmp_path)
    assert file(v1, BPS.format("write"), root=True).read_text() == "7:0 123456", "not ours any more"


def test_v1_leaves_a_device_alone_that_another_volume_has_by_now(
    v1: Cgroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = "/store/live/first/volume0.ext4"
    monkeypatch.setattr("pipeline.sandbox.io_limits._backing", lambda device: shown)
    limit_io(v1, tmp_path, DEVICES[:1], RATE)
    shown = "/store/live/second/volume0.ext4"
    lift_io_limits(v1, tmp_path)
    assert file(v1, BPS.format("write"), root=True).read_text() == f"7:0 {RATE}"
    limit_io(v1, tmp_path, DEVICES[:1], RATE)
    shown = "/home/somebody/disk.img"
    lift_io_limits(v1, tmp_path)
    assert file(v1, BPS.format("write"), root=True).read_text() == "7:0 0"


def test_a_kernel_without_throttling_is_not_believed(tmp_path: Path) -> None:
    made(tmp_path / "blkio" / "relbuild" / "x")
    group = Cgroup(Hierarchies({"blkio": tmp_path / "blkio"}), "x")
    limit_io(group, tmp_path, DEVICES, RATE)
    reading = reading_of(group, read_io_limits(group, DEVICES))
    assert (reading.read, reading.enforced) == (None, False)
    assert reading.reason


def reading_of(group: Cgroup, found: VolumeRates | None, *volumes: FileSystemSize) -> LimitReading:
    observed = ObservedInstance(group, 1, None, volume_rates=found or VolumeRates(), volumes=volumes)
    return next(one for one in read_limits(Limits(io_bandwidth=RATE), observed) if one.name == "io_bandwidth")


def test_without_volumes_or_block_devices_it_is_unenforced_with_the_reason(v1: Cgroup) -> None:
    assert reading_of(v1, None).reason == "the instance has no volume"
    loose = reading_of(
        v1, VolumeRates(RATE, ""), FileSystemSize("/a", 90), FileSystemSize("/b", None, why="no loop devices")
    )
    assert not loose.enforced and loose.reason == "/b is not a separate file system: no loop devices"
    assert reading_of(v1, VolumeRates(RATE, ""), FileSystemSize("/a", 90)) == LimitReading(
        "io_bandwidth", RATE, RATE, True
    )
    assert not reading_of(v1, VolumeRates(RATE - 1, ""), FileSystemSize("/a", 90)).enforced
