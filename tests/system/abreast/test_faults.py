"""Nothing half-done is visible, and the lock is the build: kill it anywhere, cut the network, install the tool."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.oci import validate_layout
from pipeline.sandbox import find_runtime, open_sandbox_registry
from pipeline.sandbox.cgroups import list_cgroups
from tests.support.patience import HUNG
from tests.support.sampling import dice, drawn
from tests.system.conftest import ROOT

pytestmark = pytest.mark.long

KILLS = 2
"""A build is killed after so many of its progress events; after all with `RELBUILD_SOAK`. `ci/faults`: at each call."""


class Place:
    """A folder with the product recipes, a store and an output of its own."""

    def __init__(self, folder: Path, mirror: Path) -> None:
        self.folder, self.mirror = folder, mirror
        shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "templates")

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable, "-m", "pipeline", "build", "nginx", "--json", "--progress", "none",
            "--store", str(self.folder / "store"), "--output", str(self.folder / "output"), *options,
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "RELBUILD_MIRROR": str(self.mirror),
        }

    def build(self, *options: str) -> dict[str, object]:
        done = subprocess.run(
            self.command(*options), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, object] = json.loads(done.stdout)["built"][0]
        return result


@pytest.fixture(scope="module")
def first(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, object]]:
    """A place in which nginx was built, and the answer. Tests read it and change nothing."""
    place = Place(tmp_path_factory.mktemp("place") / "first", mirror)
    return place, place.build("--no-smoke")


def ours(text: str, place: Place) -> list[str]:
    return [line for line in text.splitlines() if str(place.folder) in line]


def processes() -> str:
    """The command lines of all processes, line by line."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def telling(place: Place) -> list[str]:
    """The command of a build that tests its image and tells each progress event in a line of JSON."""
    return [word if word != "none" else "json" for word in place.command("--retest")]


def count_events(place: Place) -> int:
    """Let a build come to its end, and count its progress events. An account of it follows them, not in JSON."""
    done = subprocess.run(
        telling(place), cwd=place.folder, env=place.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return sum(line.startswith('{"event": ') for line in done.stderr.splitlines())


def killed_after(place: Place, events: int, delay: float) -> bool:
    """Start a build and kill it `delay` seconds after its `events`-th progress event; False if it ended before."""
    process = subprocess.Popen(
        telling(place), cwd=place.folder, env=place.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    with process.stderr:
        for _ in range(events):
            if not process.stderr.readline():
                break
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def test_killed_at_any_step_it_leaves_nothing_half_done_and_the_next_run_is_as_if_never_killed(
    mirror: Path, tmp_path: Path
) -> None:
    """A cold build and a build that only launches are killed after some of their progress events.

    The launch alone takes longer than a kill is delayed, so what is killed after fewer events than all has not ended;
    but it may have fewer after the first kill, as it finds what was kept.
    """
    reference = Place(tmp_path / "whole", mirror)
    events = {"cold": count_events(reference), "warm": count_events(reference)}
    expected = reference.build()["digest"]
    lock = (reference.folder / "recipes" / "nginx.lock").read_bytes()
    stores = []
    for name, count in events.items():
        place = Place(tmp_path / name, mirror)
        stores.append(place)
        if name == "warm":
            place.build("--no-smoke")
        delays = dice(f"kill a {name} build late")
        killed = 0
        for moment in drawn(f"kill a {name} build", range(count), KILLS):
            if not killed_after(place, moment, delays.uniform(0.0, 0.1)):
                break
            killed += 1
            layout = place.folder / "output" / "nginx"
            if layout.exists():
                assert validate_layout(layout) == ()
            written = place.folder / "recipes" / "nginx.lock"
            if written.exists():
                assert written.read_bytes() == lock
        assert killed
    for place in stores:
        assert place.build("--retest")["digest"] == expected
        assert validate_layout(place.folder / "output" / "nginx") == ()
        assert ours(Path("/proc/self/mountinfo").read_text(), place) == []
        assert list((place.folder / "store" / "sandbox" / "live").iterdir()) == []
        sandboxes = open_sandbox_registry(place.folder / "store" / "sandbox", find_runtime(None))
        assert list_cgroups(sandboxes.hierarchies, f"{sandboxes.mark}-") == ()
        deadline = time.monotonic() + HUNG
        while left := ours(processes(), place):  # A reaper ends a moment after the relbuild that it waited for.
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        old = time.time() - 3600
        for path in (place.folder / "store" / "tmp").iterdir():
            os.utime(path, (old, old))
        place.build()
        assert list((place.folder / "store" / "tmp").iterdir()) == []


def test_the_lock_and_the_kept_packages_rebuild_the_image_without_a_network_or_a_mirror(
    first: tuple[Place, dict[str, object]], tmp_path: Path
) -> None:
    place, built = first
    other = Place(tmp_path / "second", tmp_path / "no-mirror-here")
    shutil.copy(place.folder / "recipes" / "nginx.lock", other.folder / "recipes" / "nginx.lock")
    (other.folder / "store" / "blobs").mkdir(parents=True)
    lock = (place.folder / "recipes" / "nginx.lock").read_text()
    for path in (place.folder / "store" / "blobs").iterdir():
        if path.name in lock:
            shutil.copy(path, other.folder / "store" / "blobs")
    (other.folder / "no-mirror-here").mkdir()
    (tmp_path / "no-mirror-here").mkdir()
    shutil.copy(place.mirror / "RPM-GPG-KEY-local", tmp_path / "no-mirror-here")
    command = ["unshare", "--net", *other.command("--no-smoke", "--locked", "--offline")]
    done = subprocess.run(command, cwd=other.folder, env=other.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (second,) = json.loads(done.stdout)["built"]
    assert second["digest"] == built["digest"]


def test_two_builds_at_once_with_one_store_come_to_the_same(mirror: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "both", mirror)
    running = [
        subprocess.Popen(
            [*place.command()[:-1], str(place.folder / f"output-{number}")], cwd=place.folder, env=place.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    results = []
    for process in running:
        out, err = process.communicate(timeout=HUNG)
        assert process.returncode == 0, err
        results.append(json.loads(out)["built"][0]["digest"])
    assert results[0] == results[1]


@pytest.mark.parametrize("command", [["lock", "nginx", "--check"], ["explain", "nginx", "glibc"]])
def test_reading_commands_write_nothing(command: list[str], first: tuple[Place, dict[str, object]]) -> None:
    place, _ = first
    before = {path: path.stat().st_mtime_ns for path in (place.folder / "recipes").iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *command, "--store", str(place.folder / "store")],
        cwd=place.folder, env=place.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (place.folder / "recipes").iterdir()} == before
