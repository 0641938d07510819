"""What of the sandbox is pure: who, which calls, which limits, what the runtime is told."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EnvironmentLacking, SmokeError
from pipeline.model.smoke import LimitReading, Limits
from pipeline.sandbox import cgroups, loop, network, seccomp
from pipeline.sandbox.bundle import BUILD_CAPABILITIES, ContainerPlan, Mount, ProcessPlan, spec
from pipeline.sandbox.cgroups import Group, Hierarchies
from pipeline.sandbox.idmap import FIRST_BASE, IDS, SLOTS, base_of
from pipeline.sandbox.instance import merge_environment, signal_number
from pipeline.sandbox.keeper import inodes_of
from pipeline.sandbox.limits import Space, Wire, read_limits
from pipeline.sandbox.output import Capture
from pipeline.sandbox.runtime import last_message
from pipeline.sandbox.usage import Usage, transferred
from pipeline.sandbox.users import Identity, resolve_user
from pipeline.sandbox.verdict import what_happened

PASSWD = """root:x:0:0:root:/root:/bin/sh
server:x:27:28:Server:/var/lib/server:/sbin/nologin
# a comment
broken
homeless:x:30:30:::
1000:x:77:78:named by a number:/home/n:/bin/sh
"""
GROUP = "root:x:0:\nserver:x:28:\nreaders:x:40:server,root\nwriters:x:41:server\nothers:x:42:\nbroken\n"


class TestWho:
    @pytest.mark.parametrize(
        ("text", "identity"),
        [
            ("", Identity(0, 0, (40,), "/root", "root")),
            ("root", Identity(0, 0, (40,), "/root", "root")),
            ("server", Identity(27, 28, (40, 41), "/var/lib/server", "server")),
            ("27", Identity(27, 28, (40, 41), "/var/lib/server", "server")),
            ("server:readers", Identity(27, 40, (), "/var/lib/server", "server")),
            ("server:99", Identity(27, 99, (), "/var/lib/server", "server")),
            ("5000", Identity(5000, 0)),
            ("5000:5001", Identity(5000, 5001)),
            (":readers", Identity(0, 40, (), "/root", "root")),
            ("homeless", Identity(30, 30, (), "/", "homeless")),
            ("1000", Identity(77, 78, (), "/home/n", "1000")),
        ],
    )
    def test_users_and_groups_are_found_as_other_runtimes_find_them(self, text: str, identity: Identity) -> None:
        assert resolve_user(text, PASSWD, GROUP) == identity

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("ghost", "user-unknown"),
            ("server:ghosts", "group-unknown"),
            ("-1", "user-unknown"),
            ("65536", "user-out-of-range"),
            ("0:65536", "user-out-of-range"),
        ],
    )
    def test_unknown_names_are_said(self, text: str, code: str) -> None:
        with pytest.raises(SmokeError) as raised:
            resolve_user(text, PASSWD, GROUP)
        assert raised.value.code == code

    @given(st.text(max_size=20), st.text(max_size=200), st.text(max_size=200))
    def test_no_account_file_can_do_worse_than_be_refused(self, text: str, passwd: str, group: str) -> None:
        try:
            identity = resolve_user(text, passwd, group)
        except SmokeError:
            return
        assert 0 <= identity.uid < IDS
        assert 0 <= identity.gid < IDS

    @pytest.mark.parametrize("line", ["server:x:many:28:::", "server:x:27:many:::", "server:x:²:1:::"])
    def test_accounts_with_odd_numbers_are_as_if_they_were_not_there(self, line: str) -> None:
        with pytest.raises(SmokeError):
            resolve_user("server", line, "")


def test_id_ranges_do_not_overlap_nor_reach_what_others_hand_out() -> None:
    bases = [base_of(slot) for slot in range(SLOTS)]
    assert all(after - before == IDS for before, after in pairwise(bases))
    assert bases[0] == FIRST_BASE > 0x6FFF_FFFF
    assert bases[-1] + IDS <= 0x7FFE_0000
    for wrong in (-1, SLOTS):
        with pytest.raises(ValueError, match="no id range"):
            base_of(wrong)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("", 15), ("SIGQUIT", 3), ("15", 15), ("SIGRTMIN+3", 37), ("9", 9)],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["SIGNOTHING", "0", "-1", "1000", "SIG", "_DFL", "TERM+x"])
def test_what_is_no_signal_is_said(text: str) -> None:
    with pytest.raises(SmokeError):
        signal_number(text)


def test_an_environments_values_are_replaced_and_added() -> None:
    assert merge_environment(["A=1", "B=x=y"], {"A": "2", "C": ""}) == ("A=2", "B=x=y", "C=")


class TestCalls:
    """seccomp profiles."""

    def rules(self, *, build: bool) -> dict[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = {}
        profile = seccomp.profile(build=build, machine="x86_64")
        rules = profile["syscalls"]
        assert isinstance(rules, list)
        for rule in rules:
            for name in rule["names"]:
                found.setdefault(name, []).append(rule)
        return found

    def test_what_is_not_listed_does_not_exist(self) -> None:
        profile = seccomp.profile(build=True, machine="x86_64")
        assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.ENOSYS)
        assert profile["architectures"] == ["SCMP_ARCH_X86_64"]
        assert seccomp.profile(build=True, machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]

    @pytest.mark.parametrize("build", [True, False])
    def test_no_call_that_reaches_beyond_the_container_is_admitted(self, build: bool) -> None:
        rules = self.rules(build=build)
        dangerous = """
        add_key bpf delete_module finit_module fsconfig fsmount fsopen init_module io_uring_enter io_uring_setup
        kexec_file_load kexec_load keyctl mount mount_setattr move_mount open_by_handle_at open_tree
        perf_event_open pivot_root process_vm_readv process_vm_writev ptrace reboot request_key setns swapon
        umount2 unshare userfaultfd
        """
        for name in dangerous.split():
            assert [rule["action"] for rule in rules[name]] == ["SCMP_ACT_ERRNO"], name

    @pytest.mark.parametrize("build", [True, False])
    def test_no_call_is_both_admitted_and_refused_without_looking_at_its_arguments(self, build: bool) -> None:
        for name, rules in self.rules(build=build).items():
            plain = [rule for rule in rules if "args" not in rule]
            assert len(plain) <= 1, name
            assert not plain or len(rules) == 1, name

    def test_new_namespaces_cannot_be_had_through_clone(self) -> None:
        (rule,) = self.rules(build=True)["clone"]
        (argument,) = rule["args"]  # type: ignore[misc]
        assert argument == {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}
        assert [rule["action"] for rule in self.rules(build=True)["clone3"]] == ["SCMP_ACT_ERRNO"]

    def test_every_socket_family_is_either_admitted_or_refused(self) -> None:
        admitted, refused = set(), set()
        for rule in self.rules(build=False)["socket"]:
            first = rule["args"][0]  # type: ignore[index]
            if first["op"] == "SCMP_CMP_EQ":
                (admitted if rule["action"] == "SCMP_ACT_ALLOW" else refused).add(first["value"])
        assert admitted == {1, 2, 10, 16}
        assert admitted | refused == set(range(64))

    def test_building_may_change_root_and_running_may_not(self) -> None:
        assert [rule["action"] for rule in self.rules(build=True)["chroot"]] == ["SCMP_ACT_ALLOW"]
        assert [rule["action"] for rule in self.rules(build=False)["chroot"]] == ["SCMP_ACT_ERRNO"]
        assert set(self.rules(build=True)) == set(self.rules(build=False))


def plan(**changes: object) -> ContainerPlan:
    process = ProcessPlan(("/bin/sh",), ("A=b",), uid=27, gid=28, groups=(40,), open_files=100)
    whole = ContainerPlan(process, Path("/run/relbuild/root"), FIRST_BASE, "/relbuild/x", False, "host", 1 << 20)
    return replace(whole, **changes)  # type: ignore[arg-type]


class TestBundle:
    def test_running_has_a_read_only_root_no_capability_and_every_namespace(self) -> None:
        said = spec(plan())
        assert said["root"] == {"path": "/run/relbuild/root", "readonly": True}
        process, linux = said["process"], said["linux"]
        assert isinstance(process, dict)
        assert isinstance(linux, dict)
        assert all(names == [] for names in process["capabilities"].values())
        assert process["noNewPrivileges"] is True
        assert process["user"] == {"uid": 27, "gid": 28, "additionalGids": [40], "umask": 0o022}
        kinds = {"user", "pid", "network", "ipc", "uts", "mount", "cgroup"}
        assert {namespace["type"] for namespace in linux["namespaces"]} == kinds
        assert linux["uidMappings"] == [{"containerID": 0, "hostID": FIRST_BASE, "size": 65536}]
        assert linux["uidMappings"] == linux["gidMappings"]
        assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}

    def test_building_has_a_writable_root_and_eight_capabilities(self) -> None:
        process = ProcessPlan(("/bin/sh",), (), capabilities=BUILD_CAPABILITIES)
        said = json.loads(json.dumps(spec(plan(process=process, build=True))))
        assert said["root"]["readonly"] is False
        assert len(said["process"]["capabilities"]["bounding"]) == 8
        assert said["process"]["capabilities"]["ambient"] == []

    def test_limits_are_in_the_kernels_units(self) -> None:
        said = json.loads(json.dumps(spec(plan(milli_cpus=1500, memory=1 << 30, pids=20))))
        assert said["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
        assert said["linux"]["resources"]["memory"] == {"limit": 1 << 30, "swap": 1 << 30}
        assert said["linux"]["resources"]["pids"] == {"limit": 20}
        assert {"type": "RLIMIT_NOFILE", "hard": 100, "soft": 100} in said["process"]["rlimits"]
        assert {"type": "RLIMIT_CORE", "hard": 0, "soft": 0} in said["process"]["rlimits"]

    def test_swap_is_left_out_where_the_kernel_does_not_count_it(self) -> None:
        said = json.loads(json.dumps(spec(plan(memory=1 << 30, limit_swap=False))))
        assert said["linux"]["resources"]["memory"] == {"limit": 1 << 30}

    def test_namespaces_that_were_made_beforehand_are_joined(self) -> None:
        said = json.loads(json.dumps(spec(plan(namespaces={"network": Path("/proc/1/fd/9")}))))
        paths = {one["type"]: one.get("path") for one in said["linux"]["namespaces"]}
        assert {kind: path for kind, path in paths.items() if path} == {"network": "/proc/1/fd/9"}
        assert len(paths) == 7

    def test_a_tiny_share_of_a_core_is_the_least_that_the_kernel_takes(self) -> None:
        said = json.loads(json.dumps(spec(plan(milli_cpus=1))))
        assert said["linux"]["resources"]["cpu"]["quota"] == 1000

    def test_everything_bound_is_without_devices_and_setuid(self) -> None:
        mounts = (Mount(Path("/a"), "/x"), Mount(Path("/b"), "/y", read_only=True, executable=False))
        said = json.loads(json.dumps(spec(plan(mounts=mounts))))
        first, second = said["mounts"][-2:]
        assert (first["destination"], first["source"]) == ("/x", "/a")
        assert {"nosuid", "nodev", "rw"} <= set(first["options"])
        assert {"nosuid", "nodev", "ro", "noexec"} <= set(second["options"])
        assert all({"nosuid"} <= set(mount["options"]) for mount in said["mounts"])
        assert "/sys" not in {mount["destination"] for mount in said["mounts"]}


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
        found = cgroups.locate(V1)
        assert found.version == 1
        assert found.root_of("cpu") == found.root_of("cpuacct") == Path("/sys/fs/cgroup/cpu,cpuacct")
        assert [found.has(name) for name in ("memory", "pids", "freezer")] == [True, True, False]
        assert [root.name for root in found.roots()] == ["cpu,cpuacct", "memory", "pids", "systemd"]

    def test_hybrid_uses_version_1_and_cleans_version_2(self) -> None:
        found = cgroups.locate(HYBRID)
        assert found.version == 1
        assert Path("/sys/fs/cgroup/unified") in found.roots()

    def test_version_2(self) -> None:
        found = cgroups.locate(V2)
        assert found.version == 2
        assert found.roots() == (Path("/sys/fs/cgroup"),)
        assert found.root_of("memory") == Path("/sys/fs/cgroup")

    def test_none_is_said(self) -> None:
        with pytest.raises(EnvironmentLacking):
            cgroups.locate(V1.splitlines()[0])


def written(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Group:
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
    return Group(Hierarchies({}, tmp_path), "x")


@pytest.fixture
def v1(tmp_path: Path) -> Group:
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
    return Group(Hierarchies({name: tmp_path / name for name in names}), "x")


ASKED = Limits(milli_cpus=500, memory=64 << 20, pids=20)
SCRATCH = Space("/tmp", ASKED.tmpfs, inodes_of(ASKED.tmpfs))


class TestLimits:
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_what_the_kernel_took_is_read_back(self, version: str, request: pytest.FixtureRequest) -> None:
        group: Group = request.getfixturevalue(version)
        readings = read_limits(ASKED, group, pid=1, scratch=SCRATCH)
        assert {reading.name: (reading.read, reading.enforced) for reading in readings} == {
            "cpus": (500, True),
            "memory": (64 << 20, True),
            "pids": (20, True),
            "tmpfs": (64 << 20, True),
            "tmpfs_inodes": (4096, True),
        }

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_what_it_did_not_take_is_never_passed_over(self, version: str, request: pytest.FixtureRequest) -> None:
        group: Group = request.getfixturevalue(version)
        more = Limits(milli_cpus=1500, memory=128 << 20, pids=21, bandwidth=1, open_files=10**9, tmpfs=1)
        readings = read_limits(more, group, pid=1, scratch=None)
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

    def test_swap_on_top_of_memory_is_not_enforcement(self, v1: Group, v2: Group) -> None:
        folder = v1.folder("memory")
        assert folder is not None
        (folder / "memory.memsw.limit_in_bytes").write_text("9223372036854771712\n")
        other = v2.folder("memory")
        assert other is not None
        (other / "memory.swap.max").write_text("1048576\n")
        for group in (v1, v2):
            memory = read_limits(ASKED, group, pid=1, scratch=SCRATCH)[1]
            assert not memory.enforced
            assert "swap" in memory.reason

    def test_no_limit_is_not_mistaken_for_one(self, v1: Group, v2: Group) -> None:
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
            readings = {r.name: r for r in read_limits(ASKED, group, pid=1, scratch=SCRATCH)}
            assert (readings["cpus"].read, readings["cpus"].enforced) == (None, False)
            assert (readings["pids"].read, readings["pids"].enforced) == (None, False)
        assert not readings["memory"].enforced

    def test_a_missing_controller_is_the_reason(self, tmp_path: Path) -> None:
        group = Group(Hierarchies({"pids": tmp_path}), "x")
        readings = read_limits(ASKED, group, pid=1, scratch=SCRATCH)
        assert "cpu controller is not available" in readings[0].reason
        assert "memory controller is not available" in readings[1].reason

    def test_usage_is_the_same_in_both_versions(self, v1: Group, v2: Group) -> None:
        assert v2.usage() == Usage(12345678, 1_500_000, 250_000, 7, 1, 312, 4096, 12288)
        assert v1.usage() == Usage(12345678, 1_500_000, 250_000, None, 1, 312, 4096, 12288)

    def test_bandwidth_is_enforced_only_where_both_ends_are_limited(self, v1: Group) -> None:
        def reading(wire: Wire | None) -> LimitReading:
            limits = Limits(bandwidth=10_000_001)
            return read_limits(limits, v1, pid=1, scratch=SCRATCH, wire=wire)[0]

        assert reading(Wire(10_000_000, 10_000_000, why="")).enforced
        assert not reading(Wire(10_000_000, None, why="")).enforced
        assert not reading(Wire(10_000_000, 20_000_000, why="")).enforced
        assert reading(Wire(None, None, why="no tbf")).reason == "no tbf"
        assert "no link" in reading(None).reason

    def test_a_share_of_the_disk_counts_only_where_its_scheduler_knows_shares(
        self, v1: Group, v2: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def reading(group: Group, asked: int, disk: Path | None) -> LimitReading:
            return read_limits(Limits(io_weight=asked), group, pid=1, scratch=SCRATCH, disk=disk)[0]

        for group in (v1, v2):
            assert reading(group, 250, None).read == 250
            assert "not known" in reading(group, 250, None).reason
            group.set_io_weight(300)
            assert group.io_weight() == 300
            monkeypatch.setattr("pipeline.sandbox.limits._weightless", lambda group, disk: "")
            assert reading(group, 300, tmp_path).enforced
            assert not reading(group, 301, tmp_path).enforced
            monkeypatch.undo()

    def test_a_volume_may_be_smaller_than_asked_but_not_larger(self, v1: Group) -> None:
        spaces = [Space("/a", 90), Space("/b", 101), Space("/c", None, why="no loop devices")]
        readings = read_limits(Limits(volume=100), v1, pid=1, scratch=SCRATCH, volumes=spaces)[2:]
        assert [(one.name, one.enforced) for one in readings] == [
            ("volume /a", True),
            ("volume /b", False),
            ("volume /c", False),
        ]
        assert readings[2].reason == "no loop devices"

    def test_usage_of_a_group_that_is_gone_is_unknown(self, tmp_path: Path) -> None:
        for hierarchies in (Hierarchies({}, tmp_path), Hierarchies({"memory": tmp_path})):
            assert Group(hierarchies, "gone").usage() == Usage(None, None, None, None, None)


def test_a_kernel_that_counts_no_transfers_is_not_taken_for_one_that_saw_none() -> None:
    assert transferred("Total 0\n") == (None, None)
    assert transferred("7:0 Read 0\n7:0 Write 0\nTotal 0\n") == (0, 0)


class TestVerdict:
    @pytest.mark.parametrize(
        ("used", "code", "said"),
        [
            (Usage(1, 10, 0, 1, 0), 0, ""),
            (Usage(1, 10, 0, 1, 0), None, ""),
            (Usage(1, 10, 2, 1, 0), None, ""),
            (Usage(1, 10, 0, 1, 1), 137, "killed for want of memory"),
            (Usage(1, 10, 0, 1, 0, 312), 0, "refused processes 312 times"),
            (Usage(1, 10, 0, 1, 0, full=("/data (inodes)",)), 1, "/data is full (inodes)"),
            (Usage(1, 2_000_000, 4_000_000, 1, 0), 0, "held to its share of the processors for 4.0 s"),
            (Usage(1, 10, 0, 1, 0, output_dropped=5), 143, "printed 5 bytes more than are kept; ended by SIGTERM"),
            (Usage(None, None, None, None, None), 255, "ended by signal 127"),
        ],
    )
    def test_it_names_what_was_run_into(self, used: Usage, code: int | None, said: str) -> None:
        assert what_happened(used, code) == said


def test_a_loop_devices_configuration_is_as_long_as_the_kernels() -> None:
    # The length is what <linux/loop.h> says of struct loop_config on every architecture.
    assert len(loop._configuration(3, "x" * 100)) == 304


def test_addresses_suffice_for_every_range_of_ids() -> None:
    assert network.ADDRESSES.num_addresses // 2 >= 65536
    assert len({base_of(slot) // IDS % 65536 for slot in range(SLOTS)}) == SLOTS


class TestOutput:
    def test_whoever_follows_gets_all_of_it_and_may_fail(self) -> None:
        for fails in (False, True):
            pieces: list[bytes] = []

            def follow(piece: bytes, pieces: list[bytes] = pieces, fails: bool = fails) -> None:
                pieces.append(piece)
                if fails:
                    raise BrokenPipeError

            with (
                Capture(3, uid=0, gid=0, follow=follow) as capture,
                open(capture.write_end, "wb", closefd=False) as pipe,
            ):
                pipe.write(b"12345678")
            assert (capture.kept, capture.dropped) == (b"123", 5)
            assert b"".join(pieces) == b"12345678"

    def test_the_beginning_is_kept_and_the_rest_counted(self) -> None:
        with Capture(10, uid=0, gid=0) as capture, open(capture.write_end, "wb", closefd=False) as pipe:
            for piece in (b"12345", b"678", b"90abc", b"def"):
                pipe.write(piece)
                pipe.flush()
        assert (capture.kept, capture.dropped) == (b"1234567890", 6)

    def test_a_runtimes_last_error_is_found_in_its_log(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        lines = [
            '{"level":"error","msg":"first"}',
            '{"level":"error","msg":"runc run failed: no such file"}',
            '{"level":"warning","msg":"harmless"}',
            "garbage {",
        ]
        log.write_text("\n".join(lines))
        assert last_message(log) == "runc run failed: no such file"
        assert last_message(tmp_path / "none") == ""


def test_every_file_of_the_room_can_be_held_in_the_head() -> None:
    folder = Path(seccomp.__file__).parent
    sizes = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.py")}
    assert max(sizes.values()) < 400, sizes


def test_only_the_kernels_door_calls_the_kernel() -> None:
    folder = Path(seccomp.__file__).parent
    users = {path.name for path in folder.glob("*.py") if re.search(r"^import ctypes", path.read_text(), re.M)}
    assert users == {"kernel.py"}
