"""What a crash may not take away: whatever a publication leaves has reached the disk when it is done, names included.

A folder's time of modification is that of its last new or removed name; it must have been synced since, as must every
file since it was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.directory_prune import prune_directory, undo_prunings
from pipeline.mirror.backends.directory.directory_scrub import scrub_directory
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.protocol import Repository
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.oci import write_layout
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.unit.mirror.directory.test_reuse import flip

PASSING = {".incoming", ".lock", ".scrub", "ingest"}
"""Drafts, locks, and what costs another look when it is lost."""

Unsynced = Callable[[Path], list[str]]


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Unsynced:
    """What below a folder was not synced since it changed."""
    synced: dict[int, int] = {}
    real = os.fsync

    def fsync(handle: int) -> None:
        began = time.clock_gettime_ns(time.CLOCK_REALTIME)
        real(handle)
        synced[os.fstat(handle).st_ino] = began

    monkeypatch.setattr(os, "fsync", fsync)

    def look(root: Path) -> list[str]:
        found = []
        for path in (root, *root.rglob("*")):
            if path.is_symlink() or PASSING & set(path.relative_to(root).parts) or path.name == "_lock":
                continue
            if path.is_dir() and not any(path.iterdir()):
                continue
            status = path.stat()
            if synced.get(status.st_ino, 0) < status.st_mtime_ns:
                found.append(path.relative_to(root).as_posix())
        return found

    return look


def published(repository: Repository, store: Store, number: int) -> None:
    put = mirror_images.publish(repository, store, mirror_images.image(store, number), "latest")
    mirror_images.attach(repository, put.descriptor, f"note on {number}")


def test_a_publication_to_a_directory_is_on_the_disk(unsynced: Unsynced, store: Store, tmp_path: Path) -> None:
    mirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    assert unsynced(mirror.place.root) == []
    for number in (1, 2):
        published(mirror.repository("team/tiny"), store, number)
        assert unsynced(mirror.place.root) == []


def test_a_publication_to_a_layout_is_on_the_disk(unsynced: Unsynced, store: Store, tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "layout", create=True)
    assert unsynced(layout.path) == []
    for number in (1, 2):
        published(layout.repository(""), store, number)
        assert unsynced(layout.path) == []


def test_pruning_undoing_and_scrubbing_are_on_the_disk(unsynced: Unsynced, store: Store, tmp_path: Path) -> None:
    mirror: DirectoryMirror = open_directory(tmp_path / "mirror", create=True, clock=time.time)
    for number in (1, 2):
        published(mirror.repository("tiny"), store, number)
    rules = MirrorRules(retention=(RetentionRule(tags="none*", keep=0),), grace=0)
    done = prune_directory(mirror, rules, int(time.time()) + 100)
    assert done.stamp
    assert unsynced(mirror.place.root) == []
    undo_prunings(mirror, done.stamp)
    assert unsynced(mirror.place.blobs) == []
    assert unsynced(mirror.place.repositories) == []
    repository = mirror.repository("tiny")
    flip(mirror.place.blob(mirror_images.image(store, 2).layers[0].blob.digest))
    assert not scrub_directory(mirror, RepairSources(store), rate=0, progress=QUIET).lost
    assert unsynced(mirror.place.blobs) == []
    latest = repository.resolve("latest")
    assert latest is not None
    repository.remove_manifest(latest)
    assert unsynced(mirror.place.repositories) == []


def test_an_image_in_output_is_on_the_disk(unsynced: Unsynced, store: Store, tmp_path: Path) -> None:
    target = tmp_path / "output" / "tiny"
    write_layout(mirror_images.image(store, 1), store=store, target=target)
    assert unsynced(target.parent) == []
    write_layout(mirror_images.image(store, 2), store=store, target=target)
    assert unsynced(target) == []  # what stood there before was removed since its folder was synced
