"""Several at once on a mirror in a directory: tags are moved exactly, and nothing half-done is visible."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths
from pipeline.mirror.references import references
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.examples import FAST
from tests.support.mirror_images import whole
from tests.support.patience import HUNG

ROOT = Path(__file__).parents[4]

_PROGRAM = """
import sys, time
from pathlib import Path
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.protocol import TagConflict
from pipeline.store import Store
from tests.support import mirror_images
folder, which, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = Store.open(folder / f"store{which}")
repository = open_directory(folder / "mirror", create=True, clock=time.time).repository("tiny")
"""


def start(folder: Path, body: str, which: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM + body, str(folder), str(which), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=HUNG)
    assert process.returncode == 0
    return out.splitlines()


_MOVE = """
for number in range(which * count, (which + 1) * count):
    put = mirror_images.put(repository, store, mirror_images.image(store, number))
    while True:
        seen = repository.resolve("1")
        try:
            repository.point("1", mirror_images.cleared(put), seen)
            print(seen, put.digest)
            break
        except TagConflict:
            pass
"""


def test_two_processes_on_one_tag_lose_no_move(tmp_path: Path) -> None:
    processes = [start(tmp_path, _MOVE, which, 40) for which in range(2)]
    moves = dict(line.split() for process in processes for line in ended(process))
    mirror = open_directory(tmp_path / "mirror", create=False, clock=time.time)
    assert len(moves) == 80  # No two moved it from the same.
    at, steps = "None", 0
    while at in moves:
        at, steps = moves[at], steps + 1
    assert steps == 80
    assert str(mirror.repository("tiny").resolve("1")) == at
    whole(mirror)


def test_a_mirror_that_another_makes_meanwhile_keeps_what_was_published(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = MirrorPaths.make

    def late(place: MirrorPaths) -> None:
        monkeypatch.setattr(MirrorPaths, "make", make)
        other = open_directory(tmp_path / "mirror", create=True, clock=time.time)
        mirror_images.publish(other.repository("tiny"), store, mirror_images.image(store, 0), "1")
        make(place)

    monkeypatch.setattr(MirrorPaths, "make", late)
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    assert mirror.repositories() == ("tiny",)
    whole(mirror)


_ATTACH = """
if repository.resolve("1") is None:
    mirror_images.publish(repository, store, mirror_images.image(store, 0), "1")
subject = repository.manifest("1").descriptor
for number in range(count):
    mirror_images.attach(repository, subject, f"{which} {number}")
"""


def test_two_processes_attach_and_nothing_is_lost(tmp_path: Path, store: Store) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 0), "1")
    for process in [start(tmp_path, _ATTACH, which, 30) for which in range(2)]:
        ended(process)
    listed = mirror.repository("tiny").referrers(put.digest)
    texts = sorted(one.annotation("org.example.text") for one in listed)
    assert texts == sorted(f"{which} {number}" for which in range(2) for number in range(30))
    assert [one.descriptor.digest for one in listed] == sorted(one.descriptor.digest for one in listed)
    whole(mirror)


def test_a_reader_never_finds_a_tag_that_leads_nowhere(tmp_path: Path, store: Store) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    repository = mirror.repository("tiny")
    mirror_images.publish(repository, store, mirror_images.image(store, 0), "1")
    # Nobody reads what it would print, and whoever prints waits for that in the end.
    process = start(tmp_path, _MOVE.replace("print(seen, put.digest)", ""), 1, 100_000)
    seen = set()
    while len(seen) < 20:
        manifest = repository.manifest("1")
        assert manifest is not None
        assert all(repository.has_blob(blob.digest) for blob in references(manifest).blobs)
        seen.add(manifest.digest)
        assert process.poll() is None
    process.kill()
    process.communicate()


_FOR_EVER = """
print("ready", flush=True)
for number in range(100000):
    put = mirror_images.publish(repository, store, mirror_images.image(store, number, 50000), "1")
    mirror_images.attach(repository, put.descriptor, "of " + str(number))
    mirror_images.publish(open_directory(folder / "mirror", create=False, clock=time.time)
                          .repository(f"r{which}-{number}"), store, mirror_images.image(store, number), "1")
"""


def test_killed_at_any_time_and_run_again_as_if_never_killed(tmp_path: Path, store: Store) -> None:
    for attempt in range(0, 12, 4 if FAST else 1):
        process = start(tmp_path, _FOR_EVER, attempt, 0)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
        # The lists are brought up to date by the next one who publishes; everything else is right at once.
        for name in mirror.repositories():
            repository = mirror.repository(name)
            assert all(repository.manifest(tag) is not None for tag in repository.tags())
            mirror_images.publish(repository, store, mirror_images.image(store, 7), "again")
        mirror_images.publish(mirror.repository(f"after-{attempt}"), store, mirror_images.image(store, 7), "again")
        whole(mirror)
