"""cgroup v2 in a virtual machine (`ci/vm`), because this machine may have v1. Takes a minute or two, so it runs
when RELBUILD_VM=1."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.system.isolation.probes import ADMITTED, PROBES

VM = Path(__file__).parents[2] / "ci" / "vm"

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(
        os.environ.get("RELBUILD_VM") != "1",
        reason="control groups v2 are missing here; a virtual machine shows them in a minute or two: set RELBUILD_VM=1",
    ),
]


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    done = subprocess.run([VM], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    text = done.stdout
    answer = json.loads(text[text.index("{\n") :])
    assert isinstance(answer, dict)
    assert "failed" not in answer, answer["failed"]
    return answer


def enforced(readings: object) -> dict[str, tuple[int, bool]]:
    assert isinstance(readings, list)
    return {reading["name"]: (reading["read"], reading["enforced"]) for reading in readings}


def test_it_is_a_pure_v2_hierarchy(said: dict[str, object]) -> None:
    assert said["cgroup_version"] == 2
    assert isinstance(said["controllers"], list)
    assert {"cpu", "memory", "pids", "io"} <= set(said["controllers"])


def test_limits_are_taken_and_swap_is_off(said: dict[str, object]) -> None:
    readings = enforced(said["readings"])
    assert readings["cpus"] == (500, True)
    assert readings["memory"] == (64 << 20, True)
    assert readings["pids"] == (30, True)
    files = said["files"]
    assert isinstance(files, dict)
    assert files["cpu.max"] == "50000 100000"
    assert files["memory.max"] == str(64 << 20)
    assert files["memory.swap.max"] == "0"
    assert files["pids.max"] == "30"


def test_what_goes_beyond_is_stopped_and_counted(said: dict[str, object]) -> None:
    memory, forks, half = (said[name] for name in ("memory_bomb", "fork_bomb", "half_a_core"))
    assert isinstance(memory, dict)
    assert isinstance(forks, dict)
    assert isinstance(half, dict)
    assert memory["exit_code"] == 137
    assert memory["oom_kills"] >= 1
    assert 32 << 20 < memory["peak_memory"] <= 64 << 20
    assert "can't fork" in forks["log"]
    assert 0.4 < half["share"] < 0.55
    assert half["throttled_time"] > 0


def test_throughput_of_a_volume_is_limited_each_way_and_when_it_is_written_back(said: dict[str, object]) -> None:
    flow = said["throughput"]
    assert isinstance(flow, dict)
    assert enforced(flow["readings"])["io_bandwidth"] == (2 << 20, True)
    for name in ("direct_write", "direct_read", "synced_write", "written_back"):
        assert 0.8 < flow[name] / (2 << 20) < 1.2, (name, flow)


def test_no_probe_gets_out_on_this_kernel_either(said: dict[str, object]) -> None:
    texts = said["probes"]
    assert isinstance(texts, dict)
    found = {
        place: {words[0]: words[1:3] for words in (line.split() for line in text.splitlines())}
        for place, text in texts.items()
    }
    possible = {name for name, (word, _) in found["control"].items() if word == "gained"}
    assert {name for name, probe in PROBES.items() if probe.control == "gained"} <= possible
    for place in ("root", "build"):
        gained = {name for name, (word, _) in found[place].items() if word == "gained"}
        assert set(found[place]) == set(PROBES)
        assert gained == set(ADMITTED.get(place, {})), place
    # What the table's own machine may lack: here the kernel has modules, kexec and sysrq.
    for name in ("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"):
        control, contained = found["control"][name], found["root"][name]
        assert control[0] == "refused"
        assert int(control[1]) not in (errno.ENOSYS, errno.EPERM), (name, control)
        assert int(contained[1]) == errno.EPERM, (name, contained)
    assert found["control"]["write-sysrq"][0] == "gained"


def test_the_other_runtime_gives_the_same_limits(said: dict[str, object]) -> None:
    crun = said["crun"]
    assert isinstance(crun, dict)
    assert crun["runtime"].startswith("crun ")
    readings = enforced(crun["readings"])
    assert (readings["cpus"], readings["memory"], readings["pids"]) == ((500, True), (64 << 20, True), (30, True))
    assert (crun["execute"], crun["built"]) == ("answer\n", "built\n")
    assert "Seccomp:\t2" in crun["status"]
    assert "CapBnd:\t0000000000000000" in crun["status"]


def test_commands_and_scriptlets_run_there_and_nothing_is_left(said: dict[str, object]) -> None:
    assert said["execute"] == "answer\n"
    assert said["build_session"] == {"status": 0, "seccomp": 2, "memory_bomb_out_of_memory": True}
    in_turn = [[3, False, True, "one\n"], [4, True, True, ""], [0, False, True, "two\n"], [0, False, True, "three\n"]]
    assert said["in_turn"] == in_turn
    crun = said["crun"]
    assert isinstance(crun, dict) and crun["in_turn"] == in_turn
    assert (said["left_groups"], said["left_files"]) == ([], [])


def test_an_ordinary_user_to_whom_a_group_was_handed_over_has_the_same_limits(said: dict[str, object]) -> None:
    theirs = said["rootless"]
    assert isinstance(theirs, dict)
    assert theirs["prefix"] == "/person"
    readings = enforced(theirs["readings"])
    assert {name: readings[name] for name in ("cpus", "memory", "pids")} == {
        "cpus": (500, True),
        "memory": (64 << 20, True),
        "pids": (30, True),
    }
    assert theirs["execute"] == "answer\n"
    assert theirs["memory_bomb"]["exit_code"] == 137
    assert theirs["memory_bomb"]["oom_kills"] >= 1
    assert theirs["left"] == []
