"""What of the sandbox is pure: who, which calls, which limits, what the runtime is told."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SmokeError
from pipeline.model.limits import Limits
from pipeline.model.usage import Usage
from pipeline.sandbox import instance_network, loop_device, seccomp
from pipeline.sandbox.cgroups import Cgroup, Hierarchies
from pipeline.sandbox.container_user import Identity, resolve_user
from pipeline.sandbox.exit_reason import explain_exit
from pipeline.sandbox.idmap import (
    FIRST_BASE,
    ID_RANGES,
    IDS,
    first_id_of,
)
from pipeline.sandbox.limit_readings import resources_of, rlimits_of
from pipeline.sandbox.output import Capture
from pipeline.sandbox.runtime import last_message
from pipeline.sandbox.runtime_bundle import (
    BUILD_CAPABILITIES,
    ContainerPlan,
    Mount,
    ProcessPlan,
    merge_environment,
    spec,
)
from pipeline.sandbox.stop_signal import signal_number, wait_until_taken

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
    bases = [first_id_of(slot) for slot in range(ID_RANGES)]
    assert all(after - before == IDS for before, after in pairwise(bases))
    assert bases[0] == FIRST_BASE > 0x6FFF_FFFF
    assert bases[-1] + IDS <= 0x7FFE_0000
    for wrong in (-1, ID_RANGES):
        with pytest.raises(ValueError, match="no ID range"):
            first_id_of(wrong)


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

    @pytest.mark.parametrize("build", [True, False])
    def test_mptcp_is_a_protocol_that_is_not_supported(self, build: bool) -> None:
        mptcp = {"index": 2, "op": "SCMP_CMP_EQ", "value": 262}
        rules = [rule for rule in self.rules(build=build)["socket"] if mptcp in rule.get("args", [])]  # type: ignore[operator]
        assert len(rules) == 6, "two families, three kinds"
        assert {(rule["action"], rule["errnoRet"]) for rule in rules} == {("SCMP_ACT_ERRNO", errno.EPROTONOSUPPORT)}

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
    process = ProcessPlan(("/bin/sh",), ("A=b",), uid=27, gid=28, groups=(40,), rlimits=(("RLIMIT_NOFILE", 100),))
    whole = ContainerPlan(process, Path("/run/relbuild/root"), FIRST_BASE, "/relbuild/x", False, "host", 1 << 20)
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.fixture
def counting_swap(tmp_path: Path) -> Cgroup:
    """A group on a machine whose kernel counts swap."""
    (tmp_path / "memory.memsw.limit_in_bytes").touch()
    return Cgroup(Hierarchies(dict.fromkeys(("cpu", "memory", "pids"), tmp_path)), "x")


LIMITING = Cgroup(Hierarchies(dict.fromkeys(("cpu", "memory", "pids"), Path("/nonexistent"))), "x")
"""A group on a machine with these controllers, whose kernel does not count swap."""


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

    def test_limits_are_in_the_kernels_units(self, counting_swap: Cgroup) -> None:
        limits = Limits(milli_cpus=1500, memory=1 << 30, pids=20)
        said = json.loads(json.dumps(spec(plan(resources=resources_of(limits, counting_swap)))))
        assert said["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
        assert said["linux"]["resources"]["memory"] == {"limit": 1 << 30, "swap": 1 << 30}
        assert said["linux"]["resources"]["pids"] == {"limit": 20}
        assert said["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
        assert {"type": "RLIMIT_NOFILE", "hard": 100, "soft": 100} in said["process"]["rlimits"]
        assert {"type": "RLIMIT_CORE", "hard": 0, "soft": 0} in said["process"]["rlimits"]

    def test_swap_is_left_out_where_the_kernel_does_not_count_it(self) -> None:
        resources = resources_of(Limits(memory=1 << 30), LIMITING)
        assert resources["memory"] == {"limit": 1 << 30}

    def test_processes_and_open_files_are_limited_where_nothing_is_asked(self) -> None:
        assert resources_of(Limits(), LIMITING) == {"pids": {"limit": 4096}}
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert rlimits_of(Limits()) == (("RLIMIT_NOFILE", min(65536, hard)),)
        assert rlimits_of(Limits(open_files=100)) == (("RLIMIT_NOFILE", 100),)

    def test_what_must_not_run_without_its_limits_is_not_started_where_a_controller_is_missing(self) -> None:
        lacking = Cgroup(Hierarchies({"memory": Path("/nonexistent")}), "x")
        limits = Limits(memory=1 << 30, pids=20)
        assert resources_of(limits, lacking) == {"memory": {"limit": 1 << 30}}
        assert resources_of(limits, lacking, all_of_them=True)["pids"] == {"limit": 20}

    def test_namespaces_that_were_made_beforehand_are_joined(self) -> None:
        said = json.loads(json.dumps(spec(plan(namespaces={"network": Path("/proc/1/fd/9")}))))
        paths = {one["type"]: one.get("path") for one in said["linux"]["namespaces"]}
        assert {kind: path for kind, path in paths.items() if path} == {"network": "/proc/./1/fd/9"}
        assert len(paths) == 7

    def test_a_joined_namespace_is_spelled_so_that_runc_takes_no_process_for_it(self) -> None:
        """Go's Sscanf("/proc/%d/ns/user%c") counts a match as soon as the number matches: runc 1.2 and later."""
        said = json.loads(json.dumps(spec(plan(namespaces={"user": Path("/proc/1/fd/8")}))))
        (path,) = [one["path"] for one in said["linux"]["namespaces"] if one["type"] == "user"]
        assert not re.match("/proc/[0-9]+", path) and Path(path) == Path("/proc/1/fd/8")

    def test_a_tiny_share_of_a_core_is_the_least_that_the_kernel_takes(self) -> None:
        resources = resources_of(Limits(milli_cpus=1), LIMITING)
        assert resources["cpu"] == {"quota": 1000, "period": 100_000}

    def test_everything_bound_is_without_devices_and_setuid(self) -> None:
        mounts = (Mount(Path("/a"), "/x"), Mount(Path("/b"), "/y", read_only=True, executable=False))
        said = json.loads(json.dumps(spec(plan(mounts=mounts))))
        first, second = said["mounts"][-2:]
        assert (first["destination"], first["source"]) == ("/x", "/a")
        assert {"nosuid", "nodev", "rw"} <= set(first["options"])
        assert {"nosuid", "nodev", "ro", "noexec"} <= set(second["options"])
        assert all({"nosuid"} <= set(mount["options"]) for mount in said["mounts"])
        assert "/sys" not in {mount["destination"] for mount in said["mounts"]}


class TestVerdict:
    @pytest.mark.parametrize(
        ("used", "code", "said"),
        [
            (Usage(1, 10, 0, 1, 0), 0, ""),
            (Usage(1, 10, 0, 1, 0), None, ""),
            (Usage(1, 10, 2, 1, 0), None, ""),
            (Usage(1, 10, 0, 1, 1), 137, "killed: out of memory"),
            (Usage(1, 10, 0, 1, 0, 312), 0, "refused processes 312 times"),
            (Usage(1, 10, 0, 1, 0, full=("/data (inodes)",)), 1, "/data is full (inodes)"),
            (Usage(1, 2_000_000, 4_000_000, 1, 0), 0, "CPU-throttled for 4.0 s"),
            (Usage(1, 10, 0, 1, 0, output_dropped=5), 143, "output limit reached, 5 bytes dropped; killed by SIGTERM"),
            (Usage(None, None, None, None, None), 255, "killed by signal 127"),
        ],
    )
    def test_it_names_what_was_run_into(self, used: Usage, code: int | None, said: str) -> None:
        assert explain_exit(used, code) == said


def test_a_loop_devices_configuration_is_as_long_as_the_kernels() -> None:
    # The length is what <linux/loop.h> says of struct loop_config on every architecture.
    assert len(loop_device._configuration(3, "x" * 100)) == 304


def test_addresses_suffice_for_every_range_of_ids() -> None:
    assert instance_network.LINK_ADDRESSES.num_addresses // 2 >= 65536
    assert len({first_id_of(slot) // IDS % 65536 for slot in range(ID_RANGES)}) == ID_RANGES


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


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 + 1], ids=["another's first process", "none"])
def test_a_process_that_is_no_containers_first_is_not_waited_for(pid: int) -> None:
    now = time.monotonic()
    wait_until_taken(pid, signal.SIGUSR2, now, now + 60, lambda _: pytest.fail("waited"))
