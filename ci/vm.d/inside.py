"""Runs inside the machine that `ci/vm` boots: launches an image under limits on cgroup v2, and prints as one
JSON object what the kernel took and what was measured."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import platform
import re
import shutil
import struct
import sys
import time
import traceback
from pathlib import Path

from pipeline import process
from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    BuildLimits,
    SandboxRegistry,
    build_session,
    check_host,
    find_runtime,
    launch,
    open_sandbox_registry,
    rootless,
)
from pipeline.sandbox.cgroups import list_cgroups, mounted_hierarchies

PLACE = Path("/lab/store")
LIMITS = Limits(milli_cpus=500, memory=64 << 20, pids=30, open_files=100, tmpfs=3 << 20, bandwidth=10**7, io_weight=200)


def image(command: str) -> ImageConfig:
    return ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c"), command=(command,))


def tree() -> Path:
    root = PLACE / "root"
    for folder in ("bin", "etc", "root", "usr", "srv", "var", "data"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    shutil.copy("/lab/probes", root / "bin/probes")
    for beside in (Path("/lab"), root / "bin"):
        for name in ("setuid", "filecap"):
            shutil.copy("/lab/probes", beside / name)
        (beside / "setuid").chmod(0o4755)
        os.setxattr(beside / "filecap", "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))
    for applet in ("sh", "cat", "dd", "echo", "env", "head", "readlink", "sleep", "tail", "true"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    PLACE.chmod(0o700)
    return root


def main() -> dict[str, object]:
    root = tree()
    hierarchies = mounted_hierarchies()
    sandboxes = open_sandbox_registry(PLACE / "sandbox", find_runtime())
    said: dict[str, object] = {
        "kernel": platform.release(),
        "runtime": str(sandboxes.runtime),
        "cgroup_version": hierarchies.version,
        "controllers": Path("/sys/fs/cgroup/cgroup.controllers").read_text().split(),
        "doctor": {finding.name: [finding.ok, finding.detail] for finding in check_host(PLACE)},
    }

    with launch(image("sleep 1000"), [root], LIMITS, sandboxes=sandboxes, name="limits") as instance:
        said["readings"] = [dataclasses.asdict(reading) for reading in instance.readings()]
        folder = next(Path("/sys/fs/cgroup").glob(f"**/{instance.slot.name}"))
        said["files"] = {
            name: (folder / name).read_text().strip()
            for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max", "io.max")
            if (folder / name).exists()
        }
        said["execute"] = instance.execute(["/bin/echo", "answer"], timeout=60).stdout.decode()
        said["connect_refused"] = _refused(lambda: instance.connect(80, timeout=10))

    with launch(image("head -c 200m /dev/zero | tail"), [root], LIMITS, sandboxes=sandboxes, name="memory") as instance:
        code = instance.wait(90)
        said["memory_bomb"] = {"exit_code": code, **dataclasses.asdict(instance.usage())}

    forks = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); sleep 100 & done; echo all"
    with launch(image(forks), [root], LIMITS, sandboxes=sandboxes, name="forks") as instance:
        instance.wait(5)
        said["fork_bomb"] = {
            "processes": len(instance.slot.group.processes()),
            "log": instance.log.decode()[-200:],
            **dataclasses.asdict(instance.usage()),
        }

    with launch(image("while :; do :; done"), [root], LIMITS, sandboxes=sandboxes, name="spin") as instance:
        begun, before = time.monotonic(), instance.usage().cpu_time or 0
        instance.wait(10)
        after, took = instance.usage(), time.monotonic() - begun
        said["half_a_core"] = {
            "share": round(((after.cpu_time or 0) - before) / 1e6 / took, 3),
            **dataclasses.asdict(after),
        }

    with build_session([root], sandboxes=sandboxes, limits=BuildLimits(memory=48 << 20)) as session:
        outcome = session.run(["/bin/sh", "-c", "echo built; cat /proc/self/status"], timeout=120)
        found = re.search(rb"^Seccomp:\s*(\d)", outcome.stdout, re.MULTILINE)
        said["build_session"] = {
            "status": outcome.status,
            "seccomp": found and int(found[1]),
            "memory_bomb_out_of_memory": session.run(
                ["/bin/sh", "-c", "head -c 200m /dev/zero | tail"], timeout=90
            ).out_of_memory,
        }

    said["in_turn"] = in_turn(root, sandboxes)
    said["throughput"] = throughput(root, sandboxes)
    said["probes"] = probes(root, sandboxes)
    said["crun"] = with_crun(root)
    said["rootless"] = rootless_act(root)
    said["left_groups"] = list(list_cgroups(hierarchies, sandboxes.mark))
    said["left_files"] = [path.name for path in (sandboxes.state / "live").iterdir()]
    return said


def in_turn(root: Path, sandboxes: SandboxRegistry) -> list[tuple[int, bool, bool, str]]:
    """Scriptlets one after the other: status, out of memory, whether it was in turn, and what else was said."""
    said = []
    with build_session([root], sandboxes=sandboxes, limits=BuildLimits(memory=48 << 20)) as session:
        session.begin_commands(session.share("/run/relbuild"), "/run/relbuild")
        for script in (
            "echo one; exit 3",
            "head -c 200m /dev/zero | tail; exit 4",
            "sleep 1000 & echo two",
            "echo three",
        ):
            ended = session.run(["/bin/sh", "-c", f"readlink /proc/self/fd/1; {script}"], timeout=90)
            place, _, rest = ended.stdout.decode().partition("\n")
            said.append((ended.status, ended.out_of_memory, place.startswith("/run/relbuild/"), rest))
    return said


def throughput(root: Path, sandboxes: SandboxRegistry) -> dict[str, object]:
    """Bytes per second to and from a volume: direct, synced, and written back by the kernel in its own time."""
    limits = Limits(volume=64 << 20, io_bandwidth=2 << 20)
    with_volume = dataclasses.replace(image("sleep 1000"), volumes=("/data",))
    said: dict[str, object] = {}
    with launch(with_volume, [root], limits, sandboxes=sandboxes, name="flow") as instance:
        said["readings"] = [dataclasses.asdict(reading) for reading in instance.readings()]
        device = instance.file_systems.devices()[0]
        counted = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
        for name, words in {
            "direct_write": ("if=/dev/zero", "of=/data/a", "oflag=direct"),
            "direct_read": ("if=/data/a", "of=/dev/null", "iflag=direct"),
            "synced_write": ("if=/dev/zero", "of=/data/b", "conv=fsync"),
        }.items():
            # Entering the container takes long on an emulated processor; that is no time of the disk's.
            entering = instance.execute(["/bin/true"], timeout=60).took
            done = instance.execute(["/bin/dd", "bs=1M", "count=8", *words], timeout=120)
            said[name] = round((8 << 20) / max(0.1, done.took - entering)) if done.ok else done.stderr.decode()
        instance.execute(["/bin/dd", "bs=1M", "count=8", "if=/dev/zero", "of=/data/c"], timeout=60)
        begun, before = time.monotonic(), int(counted.read_text().split()[6])
        ctypes.CDLL(None).syncfs(instance.file_systems.handles["/data"])
        took = time.monotonic() - begun
        said["written_back"] = round((int(counted.read_text().split()[6]) - before) * 512 / took)
    return said


def probes(root: Path, sandboxes: SandboxRegistry) -> dict[str, str]:
    """tests/system/isolation on this kernel, which has modules, kexec and sysrq."""
    victim = process.start(["/lab/probes", "victim", "/lab/inside.py"], stdin=process.PIPE, stdout=process.PIPE)
    assert victim.stdin is not None
    assert victim.stdout is not None
    told = victim.stdout.readline().decode().split()
    words = ["all", "marker=/lab/inside.py", "trial=/tmp/trial", "uid=1000", "gid=1000", *told]
    there = ["setuid=/lab/setuid", "filecap=/lab/filecap", "hidden=/lab"]
    control = process.run(["/lab/probes", "control", *words, *there], timeout=120).stdout.decode()
    inside = ["setuid=/bin/setuid", "filecap=/bin/filecap", f"hidden={PLACE}"]
    command = ["/bin/probes", "contained", *words, *inside]
    with launch(image("sleep 1000"), [root], Limits(), sandboxes=sandboxes, name="probes") as instance:
        contained = instance.execute(command, timeout=120).stdout.decode()
    with build_session([root], sandboxes=sandboxes) as session:
        built = session.run(command, timeout=120).stdout.decode()
    victim.stdin.close()
    victim.wait()
    return {"control": control, "root": contained, "build": built}


def with_crun(root: Path) -> dict[str, object]:
    """The other runtime, which takes no hybrid hierarchies."""
    sandboxes = open_sandbox_registry(PLACE / "crun", find_runtime("crun"))
    with launch(image("sleep 1000"), [root], LIMITS, sandboxes=sandboxes, name="crun") as instance:
        said: dict[str, object] = {
            "runtime": str(sandboxes.runtime),
            "readings": [dataclasses.asdict(reading) for reading in instance.readings()],
            "execute": instance.execute(["/bin/echo", "answer"], timeout=60).stdout.decode(),
            "status": instance.execute(["/bin/cat", "/proc/self/status"], timeout=60).stdout.decode(),
        }
    with build_session([root], sandboxes=sandboxes) as session:
        said["built"] = session.run(["/bin/echo", "built"], timeout=60).stdout.decode()
    said["in_turn"] = in_turn(root, sandboxes)
    return said


def rootless_act(root: Path) -> object:
    """The same as an ordinary user whose group was handed over, as systemd does with `Delegate=yes`."""
    group = Path("/sys/fs/cgroup/person")
    group.mkdir()
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpu +memory +pids +io")
    for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "subtree_control", "threads"))):
        os.chown(path, 1000, 1000)
    home = Path("/lab/home")
    home.mkdir(mode=0o700)
    shutil.copytree(root, home / "root", symlinks=True)
    for path in [home, *home.rglob("*")]:
        os.lchown(path, 1000, 1000)
    theirs, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(ours, 1)
        os.close(theirs)
        (group / "cgroup.procs").write_text(str(os.getpid()))
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        environment = {**os.environ, "HOME": str(home)}
        os.execve(sys.executable, [sys.executable, __file__, "rootless", str(home)], environment)
    os.close(ours)
    with os.fdopen(theirs) as told:
        text = told.read()
    os.waitpid(child, 0)
    return json.loads(text or "null")


def rootless_main(home: Path) -> dict[str, object]:
    rootless.enter_user_namespace()
    sandboxes = open_sandbox_registry(home / "sandbox", find_runtime())
    said: dict[str, object] = {"prefix": sandboxes.hierarchies.prefix, "version": sandboxes.hierarchies.version}
    with launch(image("sleep 1000"), [home / "root"], LIMITS, sandboxes=sandboxes, name="mine") as instance:
        said["readings"] = [dataclasses.asdict(reading) for reading in instance.readings()]
        said["execute"] = instance.execute(["/bin/echo", "answer"], timeout=60).stdout.decode()
    bomb = "head -c 200m /dev/zero | tail"
    with launch(image(bomb), [home / "root"], LIMITS, sandboxes=sandboxes, name="memory") as instance:
        said["memory_bomb"] = {"exit_code": instance.wait(90), **dataclasses.asdict(instance.usage())}
    said["left"] = list(list_cgroups(sandboxes.hierarchies, sandboxes.mark))
    return said


def _refused(attempt: object) -> bool:
    try:
        attempt().close()  # type: ignore[operator]
    except ConnectionRefusedError:
        return True
    return False


try:
    answer = rootless_main(Path(sys.argv[2])) if sys.argv[1:2] == ["rootless"] else main()
    print(json.dumps(answer, indent=1))
except BaseException:
    print(json.dumps({"failed": traceback.format_exc()}))
