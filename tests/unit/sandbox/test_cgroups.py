"""Control groups of both versions, as kernels show them: what is read back of limits and counted of use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.model.limit import FileSystemSize, LimitReading, LinkRates
from pipeline.model.limits import Limits
from pipeline.model.limits.io_weight import set_weight, weight_of
from pipeline.model.limits.tmpfs import LIMIT as TMPFS
from pipeline.model.limits.tmpfs import inodes_of
from pipeline.model.usage import Usage
from pipeline.sandbox import cgroups
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
from pipeline.sandbox.io_counters import parse_io_bytes
from pipeline.sandbox.limit_readings import ObservedInstance, read_limits

V1 = """24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
32 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
HYBRID = V1 + "35 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2 = "30 24 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


class TestHierarchies:
    def test_version_1(self) -> None:
        found = cgroups.mounted_hierarchies(V1)
        assert found.version == 1
        assert found.root_of("cpu") == found.root_of("cpuacct") == Path("/sys/fs/cgroup/cpu,cpuacct")
        assert [found.has(name) for name in ("memory", "pids", "freezer")] == [True, True, False]
        assert [root.name for root in found.roots()] == ["cpu,cpuacct", "memory", "pids", "systemd"]

    def test_hybrid_uses_version_1_and_cleans_version_2(self) -> None:
        found = cgroups.mounted_hierarchies(HYBRID)
        assert found.version == 1
        assert Path("/sys/fs/cgroup/unified") in found.roots()

    def test_version_2(self) -> None:
        found = cgroups.mounted_hierarchies(V2)
        assert found.version == 2
        assert found.roots() == (Path("/sys/fs/cgroup"),)
        assert found.root_of("memory") == Path("/sys/fs/cgroup")

    def test_none_is_said(self) -> None:
        with pytest.raises(EnvironmentLacking):
            cgroups.mounted_hierarchies(V1.splitlines()[0])


def written(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Cgroup:
    """A group as a version 2 kernel shows it."""
    written(tmp_path, {"cgroup.controllers": "cpuset cpu io memory pids\n"})
    files = {
        "memory.max": "67108864\n",
        "memory.swap.max": "0\n",
        "memory.peak": "12345678\n",
        "memory.events": "low 0\nhigh 0\nmax 5\noom 2\noom_kill 1\noom_group_kill 0\n",
        "cpu.max": "50000 100000\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\nnr_throttled 3\nthrottled_usec 250000\n",
        "pids.max": "20\n",
        "pids.peak": "7\n",
        "pids.events": "max 312\n",
        "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 rbytes=512 wbytes=12288\n",
        "io.bfq.weight": "default 250\n",
    }
    written(tmp_path / "relbuild" / "x", files)
    return Cgroup(Hierarchies({}, tmp_path), "x")


@pytest.fixture
def v1(tmp_path: Path) -> Cgroup:
    """A group as a version 1 kernel shows it."""
    names = ("cpu", "cpuacct", "memory", "pids", "freezer", "blkio")
    files = {
        "memory/relbuild/x/memory.limit_in_bytes": "67108864\n",
        "memory/relbuild/x/memory.memsw.limit_in_bytes": "67108864\n",
        "memory/memory.memsw.limit_in_bytes": "9223372036854771712\n",
        "memory/relbuild/x/memory.max_usage_in_bytes": "12345678\n",
        "memory/relbuild/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        "cpu/relbuild/x/cpu.cfs_quota_us": "50000\n",
        "cpu/relbuild/x/cpu.cfs_period_us": "100000\n",
        "cpu/relbuild/x/cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 250000000\n",
        "cpuacct/relbuild/x/cpuacct.usage": "1500000000\n",
        "pids/relbuild/x/pids.max": "20\n",
        "pids/relbuild/x/pids.events": "max 312\n",
        "blkio/relbuild/x/blkio.throttle.io_service_bytes_recursive": (
            "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\n254:0 Total 12288\n7:0 Read 512\n7:0 Write 12288\n"
            "Total 25088\n"
        ),
        "blkio/relbuild/x/blkio.bfq.weight": "250\n",
    }
    written(tmp_path, files)
    return Cgroup(Hierarchies({name: tmp_path / name for name in names}), "x")


ASKED = Limits(milli_cpus=500, memory=64 << 20, pids=20)
SCRATCH = FileSystemSize("/tmp", ASKED[TMPFS], inodes_of(ASKED[TMPFS]))


class TestLimits:
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_what_the_kernel_took_is_read_back(self, version: str, request: pytest.FixtureRequest) -> None:
        group: Cgroup = request.getfixturevalue(version)
        readings = read_limits(ASKED, ObservedInstance(group, 1, SCRATCH))
        assert {reading.name: (reading.read, reading.enforced) for reading in readings} == {
            "cpus": (500, True),
            "memory": (64 << 20, True),
            "pids": (20, True),
            "tmpfs": (64 << 20, True),
            "tmpfs_inodes": (4096, True),
        }

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_what_it_did_not_take_is_never_passed_over(self, version: str, request: pytest.FixtureRequest) -> None:
        group: Cgroup = request.getfixturevalue(version)
        more = Limits(milli_cpus=1500, memory=128 << 20, pids=21, bandwidth=1, open_files=10**9, tmpfs=1)
        readings = read_limits(more, ObservedInstance(group, 1, None))
        assert [reading.name for reading in readings] == [
            "cpus",
            "memory",
            "pids",
            "open_files",
            "bandwidth",
            "tmpfs",
            "tmpfs_inodes",
        ]
        assert not any(reading.enforced for reading in readings)
        assert all(reading.reason for reading in readings)

    def test_swap_on_top_of_memory_is_not_enforcement(self, v1: Cgroup, v2: Cgroup) -> None:
        folder = v1.folder("memory")
        assert folder is not None
        (folder / "memory.memsw.limit_in_bytes").write_text("9223372036854771712\n")
        other = v2.folder("memory")
        assert other is not None
        (other / "memory.swap.max").write_text("1048576\n")
        for group in (v1, v2):
            memory = read_limits(ASKED, ObservedInstance(group, 1, SCRATCH))[1]
            assert not memory.enforced
            assert "swap" in memory.reason

    def test_no_limit_is_not_mistaken_for_one(self, v1: Cgroup, v2: Cgroup) -> None:
        for group, files in (
            (v1, {"cpu": ("cpu.cfs_quota_us", "-1"), "pids": ("pids.max", "max")}),
            (
                v2,
                {
                    "cpu": ("cpu.max", "max 100000"),
                    "pids": ("pids.max", "max"),
                    "memory": ("memory.max", "max"),
                },
            ),
        ):
            for controller, (name, text) in files.items():
                folder = group.folder(controller)
                assert folder is not None
                (folder / name).write_text(f"{text}\n")
            readings = {r.name: r for r in read_limits(ASKED, ObservedInstance(group, 1, SCRATCH))}
            assert (readings["cpus"].read, readings["cpus"].enforced) == (None, False)
            assert (readings["pids"].read, readings["pids"].enforced) == (None, False)
        assert not readings["memory"].enforced

    def test_a_missing_controller_is_the_reason(self, tmp_path: Path) -> None:
        group = Cgroup(Hierarchies({"pids": tmp_path}), "x")
        readings = read_limits(ASKED, ObservedInstance(group, 1, SCRATCH))
        assert "cpu controller is not available" in readings[0].reason
        assert "memory controller is not available" in readings[1].reason

    def test_usage_is_the_same_in_both_versions(self, v1: Cgroup, v2: Cgroup) -> None:
        assert v2.usage() == Usage(12345678, 1_500_000, 250_000, 7, 1, 312, 4096, 12288)
        assert v1.usage() == Usage(12345678, 1_500_000, 250_000, None, 1, 312, 4096, 12288)

    def test_bandwidth_is_enforced_only_where_both_ends_are_limited(self, v1: Cgroup) -> None:
        def reading(link_rates: LinkRates | None) -> LimitReading:
            limits = Limits(bandwidth=10_000_001)
            return read_limits(limits, ObservedInstance(v1, 1, SCRATCH, link_rates=link_rates or LinkRates()))[0]

        assert reading(LinkRates(10_000_000, 10_000_000, why="")).enforced
        assert not reading(LinkRates(10_000_000, None, why="")).enforced
        assert not reading(LinkRates(10_000_000, 20_000_000, why="")).enforced
        assert reading(LinkRates(None, None, why="no tbf")).reason == "no tbf"
        assert "no network link" in reading(None).reason

    def test_a_share_of_the_disk_counts_only_where_its_scheduler_knows_shares(
        self, v1: Cgroup, v2: Cgroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def reading(group: Cgroup, asked: int, disk: Path | None) -> LimitReading:
            return read_limits(Limits(io_weight=asked), ObservedInstance(group, 1, SCRATCH, disk=disk))[0]

        for group in (v1, v2):
            assert reading(group, 250, None).read == 250
            assert "unknown" in reading(group, 250, None).reason
            set_weight(group, 300)
            assert weight_of(group) == 300
            monkeypatch.setattr("pipeline.sandbox.limit_readings._weightless", lambda group, disk: "")
            assert reading(group, 300, tmp_path).enforced
            assert not reading(group, 301, tmp_path).enforced
            monkeypatch.undo()

    def test_a_volume_may_be_smaller_than_asked_but_not_larger(self, v1: Cgroup) -> None:
        spaces = [
            FileSystemSize("/a", 90),
            FileSystemSize("/b", 101),
            FileSystemSize("/c", None, why="no loop devices"),
        ]
        readings = read_limits(Limits(volume=100), ObservedInstance(v1, 1, SCRATCH, volumes=spaces))[2:]
        assert [(one.name, one.enforced) for one in readings] == [
            ("volume /a", True),
            ("volume /b", False),
            ("volume /c", False),
        ]
        assert readings[2].reason == "no loop devices"

    def test_usage_of_a_group_that_is_gone_is_unknown(self, tmp_path: Path) -> None:
        for hierarchies in (Hierarchies({}, tmp_path), Hierarchies({"memory": tmp_path})):
            assert Cgroup(hierarchies, "gone").usage() == Usage(None, None, None, None, None)


def test_a_kernel_that_counts_no_transfers_is_not_taken_for_one_that_saw_none() -> None:
    assert parse_io_bytes("Total 0\n") == (None, None)
    assert parse_io_bytes("7:0 Read 0\n7:0 Write 0\nTotal 0\n") == (0, 0)
