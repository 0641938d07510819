"""Nothing half-done is visible, and the lock is the build: kill it anywhere, cut the network, install the tool."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.oci import validate
from tests.system.conftest import ROOT

KILLS = 12
"""Moments at which a build is killed. Spread over the time that a whole build takes."""


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


def ours(text: str, place: Place) -> list[str]:
    return [line for line in text.splitlines() if str(place.folder) in line]


def test_killed_at_any_moment_it_leaves_nothing_half_done_and_the_next_run_is_as_if_never_killed(
    mirror: Path, tmp_path: Path
) -> None:
    reference = Place(tmp_path / "whole", mirror)
    begun = time.monotonic()
    expected = reference.build()["digest"]
    whole = time.monotonic() - begun
    seed = int(os.environ.get("RELBUILD_FAULT_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"RELBUILD_FAULT_SEED={seed}")
    moments = random.Random(seed)
    place = Place(tmp_path / "killed", mirror)
    layout = place.folder / "output" / "nginx"
    killed = 0
    for turn in range(KILLS):
        if turn % 4 == 0:
            shutil.rmtree(place.folder / "store", ignore_errors=True)
            shutil.rmtree(place.folder / "output", ignore_errors=True)
            (place.folder / "recipes" / "nginx.lock").unlink(missing_ok=True)
        process = subprocess.Popen(
            place.command("--retest"), cwd=place.folder, env=place.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(moments.uniform(0.05, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        if layout.exists():
            assert validate(layout) == ()
        lock = place.folder / "recipes" / "nginx.lock"
        if lock.exists():
            assert lock.read_bytes() == (reference.folder / "recipes" / "nginx.lock").read_bytes()
    assert killed >= KILLS // 3, "the build was too quick to be killed"
    assert place.build("--retest")["digest"] == expected
    assert validate(layout) == ()
    assert ours(Path("/proc/self/mountinfo").read_text(), place) == []
    live = place.folder / "store" / "sandbox" / "live"
    assert list(live.iterdir()) == []
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert ours(listed, place) == []
    old = time.time() - 3600
    for path in (place.folder / "store" / "tmp").iterdir():
        os.utime(path, (old, old))
    place.build()
    assert list((place.folder / "store" / "tmp").iterdir()) == []


def test_the_lock_and_the_kept_packages_rebuild_the_image_without_a_network_or_a_mirror(
    mirror: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "first", mirror)
    first = place.build("--no-smoke")
    other = Place(tmp_path / "second", tmp_path / "no-mirror-here")
    shutil.copy(place.folder / "recipes" / "nginx.lock", other.folder / "recipes" / "nginx.lock")
    (other.folder / "store" / "blobs").mkdir(parents=True)
    lock = (place.folder / "recipes" / "nginx.lock").read_text()
    for path in (place.folder / "store" / "blobs").iterdir():
        if path.name in lock:
            shutil.copy(path, other.folder / "store" / "blobs")
    (other.folder / "no-mirror-here").mkdir()
    (tmp_path / "no-mirror-here").mkdir()
    shutil.copy(mirror / "RPM-GPG-KEY-local", tmp_path / "no-mirror-here")
    command = ["unshare", "--net", *other.command("--no-smoke", "--locked", "--offline")]
    done = subprocess.run(command, cwd=other.folder, env=other.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (second,) = json.loads(done.stdout)["built"]
    assert second["digest"] == first["digest"]


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
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        results.append(json.loads(out)["built"][0]["digest"])
    assert results[0] == results[1]


def test_it_installs_as_an_ordinary_package(mirror: Path, tmp_path: Path) -> None:
    """`pip install .` in a virtual environment gives `relbuild`, which looks for a bare name in recipes/."""
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    environment = tmp_path / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", environment], check=True)
    done = subprocess.run(
        [environment / "bin" / "pip", "install", "--quiet", source], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    place = Place(tmp_path / "place", mirror)
    clean = {key: value for key, value in place.environment.items() if key != "PYTHONPATH"}
    options = place.command("--no-smoke")[4:]
    done = subprocess.run(
        [environment / "bin" / "relbuild", *options], cwd=place.folder, env=clean, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["built"][0]["name"] == "nginx"


@pytest.mark.parametrize("command", [["lock", "nginx", "--check"], ["explain", "nginx", "glibc"]])
def test_reading_commands_write_nothing(command: list[str], mirror: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "place", mirror)
    place.build("--no-smoke")
    before = {path: path.stat().st_mtime_ns for path in (place.folder / "recipes").iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *command, "--store", str(place.folder / "store")],
        cwd=place.folder, env=place.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (place.folder / "recipes").iterdir()} == before
