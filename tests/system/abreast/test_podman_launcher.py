"""A smoke test that Podman launches: what passes, what is enforced and what is not, and that nothing is left of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.model.checks import CheckKind
from pipeline.model.checks.file_check import FileFacts
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.checks.listening_check import ListeningFacts
from pipeline.model.checks.process_check import ProcessFacts
from pipeline.model.checks.restart_check import Restart
from pipeline.model.enforcement import enforcement
from pipeline.model.limits import Limits
from pipeline.model.smoke import Check, Expectation, SmokePlan
from pipeline.model.value_rules import Rule
from pipeline.smoke import report_lines
from pipeline.store import Store
from tests.support.container_storage import run
from tests.support.launched_by_podman import READY, report_of, served_image
from tests.support.patience import HUNG
from tests.support.source import ROOT
from tests.support.tiny_root import require_root

LONG = round(HUNG * 1000)
"""Milliseconds that a check may take: each of them waits for a Podman, beside six other files of tests."""


@pytest.fixture(scope="module")
def podman() -> Iterator[str]:
    """Podman's command line with a storage of its own, whose path has to be short."""
    require_root()
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        where = f"--root {folder}/root --runroot {folder}/run --storage-driver vfs"
        command = f"podman {where} --runtime runc --cgroup-manager cgroupfs"
        yield command
        run(*command.split(), "rm", "--all", "--force", "--time", "1")
        run(*command.split(), "rmi", "--all", "--force")


def left(podman: str, store: Store) -> list[str]:
    """What is left in Podman's storage and in the store's folder of sandboxes."""
    asked = (("ps", "--all", "--quiet"), ("volume", "ls", "--quiet"), ("images", "--quiet"))
    found = [line for words in asked for line in run(*podman.split(), *words).splitlines()]
    return found + [path.name for path in (store.sandbox / "live").iterdir()]


def about(name: str, kind: CheckKind, subject: object) -> Check:
    return Check(name, kind, LONG, subject=subject)  # type: ignore[arg-type]


def command(*argv: str, stdout: str) -> Check:
    return Check(" ".join(argv), CheckKind.COMMAND, LONG, Expectation(stdout=(Rule(equals=stdout),)), argv)


CHECKS = (
    command("id", "-un", stdout="server"),
    about("page", CheckKind.HTTP, HttpRequest(port=80, path="/page")),
    about("listens", CheckKind.LISTENING, ListeningFacts()),
    about("process", CheckKind.PROCESS, ProcessFacts(name="httpd", user="server")),
    about("file", CheckKind.FILE, FileFacts(path="/data/starts", owner="server")),
    Check("again", CheckKind.RESTART, LONG, subject=Restart.SAME_DATA),
    command("cat", "/data/starts", stdout="kept\nkept"),
    Check("log", CheckKind.LOG, LONG, log=(Rule(matches="^serving$"),)),
    Check("stops", CheckKind.STOP, LONG),
)

LIMITS = Limits(milli_cpus=1000, memory=64 << 20, pids=50, bandwidth=100_000_000)


def test_all_kinds_of_checks_are_asked_and_limits_are_read_back(podman: str, store: Store) -> None:
    plan = SmokePlan(READY, CHECKS, LIMITS, instances=2)
    report = report_of(store, podman, served_image(store), plan)
    assert report.passed, "\n".join(report_lines(report))
    assert report.runtime.startswith("podman 4.") and len(report.instances) == 2
    held = {one.name: one.enforced for one in enforcement(report)}
    assert held == {
        **dict.fromkeys(("cpus", "memory", "pids", "tmpfs"), True),
        **dict.fromkeys(("bandwidth", "tmpfs_inodes", "volume /data", "isolation"), False),
    }
    assert left(podman, store) == []


def test_what_the_kernel_ends_for_memory_is_said(podman: str, store: Store) -> None:
    image = served_image(store, "exec dd if=/dev/zero of=/tmp/x bs=1M count=200")
    report = report_of(store, podman, image, SmokePlan(READY, (), Limits(memory=32 << 20, tmpfs=300 << 20)))
    (instance,) = report.instances
    assert not report.passed and instance.happened == "killed: out of memory", "\n".join(report_lines(report))


def test_nothing_is_left_of_a_killed_relbuild(podman: str, store: Store) -> None:
    words = (sys.executable, "-m", "tests.support.launched_by_podman", store.root, podman)
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "begun\n"
        wait_for(lambda: len(run(*podman.split(), "ps", "--quiet").split()) == 2)
        running.kill()
    wait_for(lambda: not list((store.sandbox / "live").iterdir()))
    assert left(podman, store) == []


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HUNG
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)
