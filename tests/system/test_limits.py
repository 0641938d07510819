"""Programs that misbehave, in real instances: contained, named, and gone afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.model.limits import Limits
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.sandbox import (
    SandboxRegistry,
    explain_exit,
    find_runtime,
    launch,
    open_sandbox_registry,
)
from tests.support.bombs import (
    LIMITS,
    blocks,
    bomb,
    cables,
    echo,
    eventually,
    holders,
    make_bomb_root,
)
from tests.support.leftover_check import kill_with_reaper
from tests.support.sandbox_images import left_behind, until_logged
from tests.support.tiny_root import (
    ordinary,
    processes_of,
    require_groups,
    unenforced,
    without_groups,
)

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_bomb_root(closed)


BOMBS: dict[str, tuple[tuple[str, ...], dict[str, object], str]] = {
    "fork bomb": (("fork",), {}, r"refused processes \d+ times"),
    "heap": (("heap",), {}, "killed: out of memory"),
    "shared memory": (("shared",), {}, "killed: out of memory"),
    "memory through tmpfs": (("fill", "/tmp"), {"tmpfs": 256 << 20}, "killed: out of memory"),
    "tmpfs bytes": (("fill", "/tmp"), {}, r"/tmp is full \(bytes\)"),
    "tmpfs inodes": (("files", "/tmp"), {}, r"/tmp is full \(inodes\)"),
    "shared memory bytes": (("fill", "/dev/shm"), {}, r"/dev/shm is full \(bytes\)"),
    "device inodes": (("files", "/dev"), {}, r"/dev is full \(inodes\)"),
    "device bytes": (("fill", "/dev"), {"memory": 128 << 20}, r"/dev is full \(bytes\)"),
    "volume bytes": (("fill", "/data"), {}, r"/data is full \(bytes\)"),
    "volume inodes": (("files", "/data"), {}, r"/data is full \(inodes\)"),
    "output": (("flood",), {}, r"output limit reached, \d+ bytes dropped"),
    "processor": (("stubborn",), {"milli_cpus": 300}, "CPU-throttled"),
}


BY_ROOT = {"device inodes", "device bytes"}
"""Only the image's root can: /dev is its own."""

BY_GROUPS = {"fork bomb", "heap", "shared memory", "memory through tmpfs", "processor"}
"""Contained by control groups and nothing else."""


class TestBombs:
    @pytest.mark.parametrize("name", BOMBS)
    def test_it_is_contained_and_named_and_gone(self, root: Path, sandboxes: SandboxRegistry, name: str) -> None:
        words, changes, verdict = BOMBS[name]
        if name in BY_GROUPS:
            require_groups(name)
        if name.startswith("volume") and ordinary():
            # Never started: it would fill the disk.
            with launch(
                bomb("serve", "80", volumes=("/data",)), [root], LIMITS, sandboxes=sandboxes, name="x"
            ) as instance:
                reading = next(one for one in instance.readings() if one.name == "volume /data")
            assert (reading.read, reading.enforced) == (None, False)
            assert "loop device" in reading.reason
            unenforced("the size of volumes")
        links = cables()
        limits = LIMITS.changed(**changes)  # type: ignore[arg-type]
        image = bomb(*words, volumes=("/data",))
        if name in BY_ROOT:
            # Not at once: /dev is the runtime's, and what became of it is known only of an instance that was seen.
            waiting = ("/bin/sh", "-c", f"sleep 0.5; exec /bin/bomb {' '.join(words)}")
            image = replace(image, entrypoint=waiting, user="")
        with launch(image, [root], limits, sandboxes=sandboxes, name="bomb") as instance:
            assert all(reading.enforced for reading in instance.readings() if reading.read is not None)
            assert instance.wait(2.5 if words[0] in ("fork", "stubborn") else 40) is not None or words[0] in (
                "fork",
                "stubborn",
            )
            if words[0] == "stubborn":
                assert instance.stop("SIGTERM", 0.5) is None
            base = instance.slot.base
            assert instance.link is not None
            namespaces = [os.fstat(end).st_ino for end in (instance.link.inside, instance.link.outside)]
            assert all(holders(number) for number in namespaces), "the test would not see anything"
            processes = instance.slot.group.processes()
            assert len(processes) <= 40
            code = instance.kill()
            said = explain_exit(instance.usage(), code)
            assert re.search(verdict, said), (said, instance.usage(), instance.log[:300])
            assert instance.slot.group.processes() == set()
        usage = instance.usage()
        assert (usage.peak_memory or 0) <= (limits[MEMORY] or 0)
        assert processes_of(base) == []
        assert left_behind(sandboxes) == []
        assert cables() == links
        eventually(lambda: not blocks(sandboxes.mark) and not any(holders(number) for number in namespaces))

    def test_devices_are_no_place_for_files_of_any_other_user(self, root: Path, sandboxes: SandboxRegistry) -> None:
        with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="dev") as instance:
            for place in ("/dev/file", "/dev/pts/file"):
                refused = instance.execute(["touch", place])
                assert refused.status != 0 and b"denied" in refused.stderr
            space = instance.file_systems.space("/dev")
            assert (space.size, space.inodes) == (64 << 20, 4096)

    def test_a_bomb_leaves_its_neighbour_alone(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("fork bomb")
        with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="calm") as calm:
            until_logged(calm, b"serving")
            with launch(bomb("fork"), [root], LIMITS, sandboxes=sandboxes, name="bomb") as wild:
                wild.wait(1.0)
                assert echo(calm.connect(80, timeout=5, address=calm.address), b"still here") == b"still here"
            assert calm.alive
            assert explain_exit(calm.usage(), None) == ""


class TestProcessors:
    def test_half_a_core_is_half_a_core(self, root: Path, sandboxes: SandboxRegistry) -> None:
        require_groups("cpus")
        with launch(bomb("spin"), [root], Limits(milli_cpus=500), sandboxes=sandboxes, name="half") as instance:
            instance.wait(0.2)
            begun, before = time.monotonic(), instance.usage().cpu_time
            instance.wait(2)
            after, took = instance.usage(), time.monotonic() - begun
        assert before is not None
        assert after.cpu_time is not None
        share = (after.cpu_time - before) / 1e6 / took
        assert share < 0.55
        # Others use the machine too: then it may get less, and was held back less.
        assert share > 0.45 or (after.throttled_time or 0) < 500_000

    def test_shares_of_the_disk_are_read_back_and_said_to_be_without_effect_where_they_are(
        self, root: Path, sandboxes: SandboxRegistry
    ) -> None:
        with launch(bomb("spin"), [root], Limits(io_weight=250), sandboxes=sandboxes, name="weight") as instance:
            reading = next(one for one in instance.readings() if one.name == "io_weight")
        if without_groups():
            assert (reading.read, reading.enforced) == (None, False)
            assert "not delegated" in reading.reason
            unenforced("shares of the disk, without control groups")
        if reading.enforced:
            assert reading.read == 250
        else:
            assert "bfq" in reading.reason or "not available" in reading.reason or "did not accept" in reading.reason


@pytest.mark.parametrize("words", [("fork",), ("stubborn",), ("flood", "on")], ids=lambda words: words[0])
def test_nothing_is_left_of_a_killed_relbuild_at_the_next_start(
    root: Path, closed: Path, words: tuple[str, ...]
) -> None:
    if words[0] != "flood":
        require_groups("fork bomb" if words[0] == "fork" else "processor")
    state = closed / f"killed-{words[0]}"
    links = cables()
    program = f"""
import os, sys
from pathlib import Path
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import find_runtime, launch, open_sandbox_registry, open_volumes, publish_port, reserve_port
sandboxes = open_sandbox_registry(Path({str(state)!r}), find_runtime())
image = ImageConfig("amd64", 0, entrypoint=("/bin/bomb", *{words!r}), user="server", volumes=("/data",))
limits = Limits(milli_cpus=500, memory=64 << 20, pids=40, bandwidth=10**7, volume=16 << 20)
with open_volumes(sandboxes) as volumes:
    with launch(image, [Path({str(root)!r})], limits, sandboxes=sandboxes, name="x", volumes=volumes) as instance:
        with reserve_port(0) as reserved, publish_port(instance, reserved, 80):
            instance.wait(0.5)
            namespaces = [os.fstat(end).st_ino for end in (instance.link.inside, instance.link.outside)]
            print("up", sandboxes.mark, instance.slot.base, *namespaces, flush=True)
            sys.stdin.read()
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdin is not None
    _, mark, base, *namespaces = child.stdout.readline().split()
    assert ordinary() or blocks(mark), "no volume, so nothing is tested"
    assert all(holders(int(number)) for number in namespaces), "no network, so nothing is tested"
    kill_with_reaper(child.pid, state)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    sandboxes = open_sandbox_registry(state, find_runtime())
    eventually(lambda: not left_behind(sandboxes))
    eventually(lambda: not processes_of(int(base)))
    eventually(lambda: not blocks(mark) and not any(holders(int(number)) for number in namespaces))
    assert cables() == links
