"""A directory mirror is copied by rsync while others publish: no tag ever leads to something that is missing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.references import references
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.mirror_images import whole
from tests.support.patience import HUNG
from tests.support.tag_moving_publisher import moving


def rsync(mirror: Path, source: Path | str, target: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", mirror / "rsync.sh", *options, source, target], capture_output=True, text=True, timeout=HUNG, check=False
    )


def copied(target: Path) -> DirectoryMirror:
    return open_directory(target, create=False, clock=time.time)


def right_tags(mirror: DirectoryMirror) -> int:
    """All tags lead to something whole, also while they are moved and removed; returns how many there are."""
    repository = mirror.repository("tiny")
    tags = repository.tags()
    for tag in tags:
        manifest = repository.manifest(tag)
        if manifest is None:
            assert repository.resolve(tag) is None, f"{tag} leads nowhere"
            continue
        missing = [blob.digest for blob in references(manifest).blobs if not repository.has_blob(blob.digest)]
        assert not missing or repository.resolve(tag) != manifest.digest, f"{tag} lacks {missing}"
    return len(tags)


@pytest.fixture
def original(tmp_path: Path) -> tuple[DirectoryMirror, Store]:
    store = Store.open(tmp_path / "store")
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    for number in range(3):
        put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, number), f"v{number}")
        mirror_images.attach(mirror.repository("tiny"), put.descriptor, "a note")
    return mirror, store


def test_rsync_makes_the_same_mirror_and_deletes_last(original: tuple[DirectoryMirror, Store], tmp_path: Path) -> None:
    mirror, store = original
    root, target = mirror.place.root, tmp_path / "copy"
    done = rsync(root, root, target)
    assert done.returncode == 0, done.stderr
    assert mirror_images.all_files(target) == mirror_images.all_files(root)
    whole(copied(target))
    # Again: nothing is written.
    before = {path: path.lstat().st_ino for path in target.rglob("*")}
    assert rsync(root, root, target).returncode == 0
    assert {path: path.lstat().st_ino for path in target.rglob("*")} == before
    # A tag moves, and what it pointed to goes.
    repository = mirror.repository("tiny")
    gone = repository.resolve("v0")
    assert gone is not None
    blob = mirror_images.image(store, 0).layers[1].blob.digest
    repository.point(
        "v0", mirror_images.cleared(mirror_images.put(repository, store, mirror_images.image(store, 9))), gone
    )
    repository.remove_tag("v2", repository.resolve("v2") or gone)
    with mirror.pruning(1) as pruning:
        pruning.quarantine(RemovalList((), (("tiny", gone),), (blob,)), time.time())
    assert rsync(root, root, target, "--keep").returncode == 0
    assert copied(target).repository("tiny").has_blob(blob)
    assert copied(target).repository("tiny").resolve("v0") == repository.resolve("v0")
    done = rsync(root, root, target)
    assert done.returncode == 0, done.stderr
    assert not copied(target).repository("tiny").has_blob(blob)
    assert copied(target).repository("tiny").manifest(gone) is None
    assert {name: data for name, data in mirror_images.all_files(root).items() if not name.startswith(".")} == (
        mirror_images.all_files(target)
    )
    whole(copied(target))


def test_a_list_of_equal_size_and_second_is_copied(original: tuple[DirectoryMirror, Store], tmp_path: Path) -> None:
    mirror, store = original
    root, target = mirror.place.root, tmp_path / "copy"
    lists = [Path("repositories/tiny/_tags.json"), Path("catalog.json")]
    assert rsync(root, root, target).returncode == 0
    assert all((target / one).read_bytes() == (root / one).read_bytes() for one in lists)
    before = {one: (root / one).stat() for one in lists}
    repository = mirror.repository("tiny")
    mirror_images.publish(repository, store, mirror_images.image(store, 2), "v7")
    repository.remove_tag("v2", repository.resolve("v2") or Digest.of(b""))
    (root / lists[1]).write_bytes((root / lists[1]).read_bytes().replace(b"tiny", b"tina"))
    for one, seen in before.items():
        assert (root / one).read_bytes() != (target / one).read_bytes() and (root / one).stat().st_size == seen.st_size
        os.utime(root / one, ns=(seen.st_atime_ns, seen.st_mtime_ns // 10**9 * 10**9 + 1))
    assert rsync(root, root, target).returncode == 0
    assert all((target / one).read_bytes() == (root / one).read_bytes() for one in lists)


@pytest.mark.parametrize("remote", ["source", "destination"])
def test_rsync_from_and_to_another_machine(
    original: tuple[DirectoryMirror, Store], tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that drops the host's name and stays here stands for ssh."""
    root, target = original[0].place.root, tmp_path / "copy"
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("RSYNC", f"rsync -e {shell}")
    ends = {"source": str(root), "destination": str(target)}
    ends[remote] = f"elsewhere:{ends[remote]}"
    for _ in range(2):
        done = rsync(root, ends["source"], ends["destination"])
        assert done.returncode == 0, done.stderr
        assert mirror_images.all_files(target) == mirror_images.all_files(root)
        original[0].repository("tiny").remove_tag("v2", original[0].repository("tiny").resolve("v2") or Digest.of(b""))
        mirror_images.publish(original[0].repository("tiny"), original[1], mirror_images.image(original[1], 2), "v2")
    assert rsync(root, "a:/b", "c:/d").returncode == 2


def test_rsync_while_others_publish_and_prune(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    looks = copies = 0
    with moving(tmp_path, prune=True) as process:
        end = time.monotonic() + 12
        while copies < 2 or looks <= 20 or time.monotonic() < end:
            assert process.poll() is None
            with subprocess.Popen(["sh", tmp_path / "mirror" / "rsync.sh", tmp_path / "mirror", target]) as copy:
                while copy.poll() is None:
                    if (target / "relbuild-mirror.json").exists():
                        right_tags(copied(target))
                        looks += 1
            assert copy.returncode == 0
            copies += 1
    assert rsync(tmp_path / "mirror", tmp_path / "mirror", target).returncode == 0
    assert right_tags(copied(target)) > 1
    whole(copied(target))
    live = {name for name in mirror_images.all_files(tmp_path / "mirror") if not name.startswith(".")}
    assert set(mirror_images.all_files(target)) == live


def test_rsync_interrupted_at_any_time_leaves_whole_tags(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    with moving(tmp_path, prune=True) as process:
        for attempt in range(20):
            assert process.poll() is None
            copy = subprocess.Popen(
                ["sh", tmp_path / "mirror" / "rsync.sh", tmp_path / "mirror", target],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            time.sleep(0.05 + 0.04 * attempt)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(copy.pid, signal.SIGKILL)  # This test's own session.
            copy.wait()
            if (target / "relbuild-mirror.json").exists():
                right_tags(copied(target))
    assert rsync(tmp_path / "mirror", tmp_path / "mirror", target).returncode == 0
    whole(copied(target))
