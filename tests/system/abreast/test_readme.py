"""Every block of the README, and the first of docs/running.md, typed in order into a fresh checkout of one home."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import BuildResult
from pipeline.prepare import BuildEnvironment
from tests.support.document_sessions import Shell, sessions
from tests.system.conftest import ROOT

pytestmark = pytest.mark.long

NOT_TYPED = "ci/test"
"""It runs this test, and is run by who reads this."""

STORAGE = """[storage]
driver = "vfs"
graphroot = "{0}/root"
runroot = "{0}/run"
"""
ENGINE = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


@pytest.fixture
def network() -> Iterator[str]:
    """A network of its own, in which every port is free: the path of its namespace."""
    words = ("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "up\n"
        yield f"/proc/{holder.pid}/ns/net"
        holder.kill()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing in it but what is in git."""
    folder = tmp_path / "relbuild"
    words = ("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@a.invalid", "commit", "-q", "-m", "As it is")
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(("git", "-C", folder, *words), check=True, capture_output=True, text=True).stdout


@pytest.fixture
def shell(checkout: Path, tmp_path: Path, mirror: Path, network: str) -> Iterator[Shell]:
    home = tmp_path / "home"
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relbuild"
    (home / ".cache/relbuild").mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin/relbuild").write_text(f'#!/bin/sh\nexec {checkout}/ci/relbuild "$@"\n')
    (home / "bin/relbuild").chmod(0o755)
    (home / ".cache/relbuild/venv").symlink_to(caches / "venv")
    # The path of podman's storage has to be short.
    storage = Path(f"/tmp/readme-{os.getpid()}")
    storage.mkdir(mode=0o700)
    (tmp_path / "storage.conf").write_text(STORAGE.format(storage))
    (tmp_path / "containers.conf").write_text(ENGINE)
    environment = {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", ""),
        "RELBUILD_MIRROR": str(mirror),
        "RELBUILD_KEY_PASSWORD": "for the test",
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
        "CONTAINERS_CONF": str(tmp_path / "containers.conf"),
    }
    typed = Shell(checkout, environment, "nsenter", f"--net={network}", "--")
    yield typed
    typed.close()
    for words in (("podman", "rm", "--all", "--force", "--time", "1"), ("podman", "rmi", "--all", "--force")):
        subprocess.run(words, env=environment, check=False, capture_output=True)
    shutil.rmtree(storage)


def test_the_readme_is_true(
    shell: Shell, checkout: Path, build_env: BuildEnvironment, built: Callable[[str], BuildResult]
) -> None:
    readme = ROOT / "README.md"
    # MySQL comes out of the store of this run of tests, in which other tests need it as well.
    (first, last) = sessions(readme, "Two commands")
    built("mysql")
    shell.type(first, RELBUILD_STORE=str(build_env.store.root))
    assert last.command.startswith(f"{NOT_TYPED} ") and os.access(checkout / NOT_TYPED, os.X_OK)
    for step in sessions(readme, "Five minutes"):
        shell.type(step)
    # The night has made redis; now as on a machine on which relbuild is installed.
    for step in sessions(ROOT / "docs/running.md", "Running instances"):
        shell.type(step)
    # What was broken is undone, and keys, mirrors and images are outside, or nothing that git would take.
    assert git(checkout, "status", "--porcelain") == ""
