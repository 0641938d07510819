"""Detached instances by the command line: two of redis side by side, one of which is stopped, and one killed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.instances import find_instance, supervisor_pid
from pipeline.store import Store
from tests.support.leftover_check import left_since, snapshot
from tests.support.patience import HUNG
from tests.system.conftest import ROOT

SMALL = ("--set", "maxmemory=64mb")


class Relbuild:
    """The command with a store of its own, and the layouts that were built."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "store")
        self._settings = {
            "HOME": folder,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ROOT,
            # Who leaves it has another policy in the file.
            "EDITOR": "sed -i s/noeviction/allkeys-lru/",
            "RELBUILD_OUTPUT": output,
            "RELBUILD_PROGRESS": "none",
            "RELBUILD_STORE": self.store.root,
        }

    def command(self, *words: str | Path) -> list[str | Path]:
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        return ["env", "-i", *settings, sys.executable, "-m", "pipeline", *words]

    def __call__(self, *words: str | Path, text: str = "", status: int = 0) -> str:
        """What it printed on stdout, or on stderr when it is to fail."""
        done = subprocess.run(
            self.command(*words), input=text, capture_output=True, text=True, cwd=self.folder, timeout=HUNG, check=False
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stderr if status else done.stdout


@pytest.fixture
def relbuild(tmp_path: Path, built: Callable[[str], BuildResult]) -> Iterator[Relbuild]:
    run = Relbuild(tmp_path, built("redis").layout.parent)
    yield run
    left = [path.name for path in run.store.instances.glob("*")]
    if left:
        run("rm", "--force", *left)


def test_two_run_side_by_side_with_their_own_settings_until_they_are_stopped_or_killed(
    relbuild: Relbuild, recipes: Path
) -> None:
    before = snapshot(relbuild.store.root)
    redis = recipes / "redis.yaml"
    words = ("--json", "-p", "0:6379", "--memory", "128MiB", *SMALL, "-e", "PIN=4711-9")
    first = json.loads(relbuild("run", "-d", redis, *words))
    assert first["name"] == "redis-1"
    assert relbuild("exec", "redis-1", "/bin/sh", "-c", "echo $PIN") == "4711-9\n"
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"4711-9" in words_of_process(path)] == []
    relbuild("run", "-d", redis, "--name", "cache", "--set", "maxmemory=32mb", "--edit", "/etc/redis/redis.conf")
    assert "instance-exists" in relbuild("run", "-d", redis, "--name", "cache", status=2)
    told = relbuild("ps")
    assert told.count("running for") == 2 and "memory 128MiB" in told
    assert f"{first['ports'][0]['host']} → 6379" in told
    assert "with changes: maxmemory=32mb, edited /etc/redis/redis.conf" in told
    # Each has its own configuration and data.
    asked = ("redis-cli", "config", "get", "maxmemory", "maxmemory-policy")
    assert set(relbuild("exec", "redis-1", *asked).split()) >= {str(64 << 20), "noeviction"}
    assert set(relbuild("exec", "cache", *asked).split()) >= {str(32 << 20), "allkeys-lru"}
    relbuild("exec", "redis-1", "redis-cli", "set", "who", "first")
    assert relbuild("exec", "-i", "redis-1", "redis-cli", text="get who\n") == "first\n"
    assert relbuild("exec", "cache", "redis-cli", "get", "who") == "\n"
    assert "command-not-started" in relbuild("exec", "-u", "0", "cache", "nosuch", status=127)
    assert "/dev/pts/0" in in_terminal(
        relbuild.command("exec", "cache"),
        "until [ \"$(stty size)\" = '33 101' ]; do sleep 0.1; done; tty; exit 5",
        status=5,
    )
    stop_and_remove_one(relbuild)
    kill_and_find_nothing(relbuild, lambda: left_since(before))


def words_of_process(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # It has ended.


def stop_and_remove_one(relbuild: Relbuild) -> None:
    assert "instance-running" in relbuild("rm", "redis-1", status=2)
    assert json.loads(relbuild("stop", "--json", "redis-1"))["stopped"] == [{"name": "redis-1", "exit_code": 0}]
    assert [path for path in (relbuild.store.sandbox / "live").iterdir() if "redis-1" in path.name] == []
    assert relbuild("logs", "-f", "-n", "1", "redis-1").endswith("bye bye...\n")
    relbuild("rm", "redis-1")


def kill_and_find_nothing(relbuild: Relbuild, left: Callable[[], tuple[str, ...]]) -> None:
    """Nothing is left of the other one when its supervisor is killed, and `ps` says so."""
    supervisor = supervisor_pid(find_instance(relbuild.store.instances, "cache"))
    assert supervisor is not None and any("process" in one for one in left())
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + HUNG
    while found := [one for one in left() if "instances" not in one]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert "dead: its supervisor was killed" in relbuild("ps")
    kept = relbuild.store.instances / "cache/files/etc/redis/redis.conf"
    assert "maxmemory 32mb\nmaxmemory-policy allkeys-lru\n" in kept.read_text()


def in_terminal(words: list[str | Path], line: str, *, status: int) -> str:
    """What a command writes to a terminal of 33 lines and 101 columns in which a line is typed."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 101, 0, 0))
    shell = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, f"{line}\n".encode())
    said, deadline = b"", time.monotonic() + HUNG
    try:
        while select.select([master], [], [], deadline - time.monotonic())[0]:
            said += os.read(master, 65536)
    except OSError:
        pass  # Nobody has it open any more.
    finally:
        os.close(master)
    assert shell.wait(HUNG) == status, said
    return said.decode()
