"""What is pruned from a directory is moved aside and can come back, also when that is killed half-way."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, UsageError
from pipeline.mirror.atomic_files import file_locked
from pipeline.mirror.backends.directory import mirror_paths
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
from pipeline.mirror.published import read_published
from pipeline.mirror.references import fallback_tag
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.mirror_images import whole
from tests.support.patience import HUNG


@pytest.fixture
def full(mirror: DirectoryMirror, store: Store) -> tuple[DirectoryMirror, RemovalList]:
    """A mirror of two images with notes, and the first image with all that is its own."""
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    one = mirror_images.publish(repository, store, made, "1")
    note = mirror_images.attach(repository, one.descriptor, "first")
    other = mirror_images.image(store, 2)
    two = mirror_images.publish(repository, store, other, "2")
    mirror_images.attach(repository, two.descriptor, "second")
    tags = (("tiny", "1", one.digest),)
    manifests = (("tiny", one.digest), ("tiny", note.digest))
    return mirror, RemovalList(tags, manifests, tuple(mirror_images.blobs_of(made) - mirror_images.blobs_of(other)))


def content(mirror: DirectoryMirror) -> dict[str, bytes | str]:
    """All that is not aside, but for lists of referrers that nothing points to any more."""
    return {name: data for name, data in mirror_images.all_files(mirror.place.root).items() if not name.startswith(".")}


def test_what_goes_into_quarantine_comes_back(full: tuple[DirectoryMirror, RemovalList]) -> None:
    mirror, leaving = full
    before = content(mirror)
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(leaving, 1_800_000_000.0)
    repository = mirror.repository("tiny")
    assert repository.manifest("1") is None
    assert "1" not in repository.tags()
    assert not any(repository.has_blob(digest) for digest in leaving.blobs)
    assert not any(repository.manifest(digest) for _, digest in leaving.manifests)
    assert repository.referrers(leaving.tags[0][2]) == ()
    assert (mirror.place.root / ".quarantine").stat().st_mode & 0o777 == 0o700
    whole(mirror)
    with mirror.pruning(1) as pruning:
        (kept,) = pruning.quarantined()
        assert (kept.stamp, kept.at, kept.leaving) == (stamp, 1_800_000_000.0, leaving)
        restored = pruning.restore(stamp)
        assert (restored.tags, restored.kept_tags) == ((("tiny", "1"),), ())
        assert (restored.manifests, restored.blobs) == (2, len(leaving.blobs))
        assert pruning.quarantined() == ()
        with pytest.raises(UsageError) as caught:
            pruning.restore(stamp)
        assert caught.value.code == "quarantine-unknown"
    assert content(mirror) == before
    whole(mirror)


def test_the_list_of_tags_is_written_once_however_many_tags_go_and_come_back(
    mirror: DirectoryMirror, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = mirror.repository("tiny")
    names = [f"old{number}" for number in range(9)]
    made = mirror_images.image(store, 1)
    (one,) = {mirror_images.publish(repository, store, made, name) for name in names}
    written: list[Path] = []
    real = mirror_paths.replace_file
    monkeypatch.setattr(
        mirror_paths, "replace_file", lambda data, path, drafts: written.append(path) or real(data, path, drafts)
    )
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(RemovalList(tuple(("tiny", name, one.digest) for name in names), (), ()), 1.8e9)
        assert [path.name for path in written] == ["_tags.json"] and repository.tags() == ()
        pruning.restore(stamp)
    assert [path.name for path in written] == ["_tags.json"] * 2 and set(repository.tags()) == set(names)


def test_a_list_of_referrers_goes_and_comes_back_with_its_image(full: tuple[DirectoryMirror, RemovalList]) -> None:
    mirror, leaving = full
    repository = mirror.repository("tiny")
    subject = leaving.tags[0][2]
    two = repository.manifest(subject)
    assert two is not None
    notes = [mirror_images.attach(repository, two.descriptor, text).digest for text in ("a", "b", "c")]
    tag = fallback_tag(subject)
    listed = repository.resolve(tag)
    assert listed is not None
    more = RemovalList(
        (*leaving.tags, ("tiny", tag, listed)),
        (*leaving.manifests, *(("tiny", digest) for digest in (*notes, listed))),
        leaving.blobs,
    )
    before = content(mirror)
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(more, 1_800_000_000.0)
        assert not {"1", tag} & set(repository.tags())
        assert pruning.restore(stamp).kept_tags == ()
    after = content(mirror)
    assert {name: after[name] for name in before} == before
    assert len(repository.referrers(subject)) == 4
    whole(mirror)


def test_a_tag_that_was_made_again_is_not_taken_back(full: tuple[DirectoryMirror, RemovalList]) -> None:
    mirror, leaving = full
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(leaving, 1_800_000_000.0)
    repository = mirror.repository("tiny")
    two = repository.manifest("2")
    assert two is not None
    repository.point("1", mirror_images.cleared(two), None)
    with mirror.pruning(1) as pruning:
        assert pruning.restore(stamp).kept_tags == (("tiny", "1"),)
    assert repository.resolve("1") == two.digest
    whole(mirror)


def test_quarantine_is_emptied_by_age(full: tuple[DirectoryMirror, RemovalList]) -> None:
    mirror, leaving = full
    size = sum(mirror.place.blob(digest).stat().st_size for digest in leaving.blobs)
    with mirror.pruning(1) as pruning:
        pruning.quarantine(leaving, 1_800_000_000.0)
        assert pruning.empty_quarantine(1_800_000_000.0) == 0
        (kept,) = pruning.quarantined()
        assert kept.size > size
        assert pruning.empty_quarantine(1_800_000_001.0) == kept.size
        assert pruning.quarantined() == ()
    assert not list((mirror.place.root / ".quarantine").iterdir())


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Kills at the Nth change of a name; N is the list's only item, 0 for never."""
    left = [0]
    for name in ("rename", "replace", "unlink", "mkdir"):
        original = getattr(Path, name)

        def dies(self: Path, *words: object, _original: object = original, **more: object) -> object:
            if left[0]:
                left[0] -= 1
                if not left[0]:
                    raise Killed
            return _original(self, *words, **more)  # type: ignore[operator]

        monkeypatch.setattr(Path, name, dies)
    yield left
    left[0] = 0


def test_a_pruning_killed_at_any_step_can_be_undone(
    full: tuple[DirectoryMirror, RemovalList], dying: list[int]
) -> None:
    mirror, leaving = full
    before = content(mirror)
    for step in range(1, 200):
        dying[0] = step
        try:
            with mirror.pruning(1) as pruning:
                pruning.quarantine(leaving, 1_800_000_000.0)
            died = False
        except Killed:
            died = True
        dying[0] = 0
        with mirror.pruning(1) as pruning:
            for kept in pruning.quarantined():
                pruning.restore(kept.stamp)
        assert content(mirror) == before, step
        whole(mirror)
        if not died:
            break
    assert 15 < step < 199


def test_an_undoing_killed_at_any_step_is_finished_by_the_next(
    full: tuple[DirectoryMirror, RemovalList], dying: list[int]
) -> None:
    mirror, leaving = full
    before = content(mirror)
    for step in range(1, 200):
        with mirror.pruning(1) as pruning:
            stamp = pruning.quarantine(leaving, 1_800_000_000.0)
        dying[0] = step
        try:
            with mirror.pruning(1) as pruning:
                pruning.restore(stamp)
            died = False
        except Killed:
            died = True
        dying[0] = 0
        with mirror.pruning(1) as pruning:
            for kept in pruning.quarantined():
                pruning.restore(kept.stamp)
            pruning.empty_quarantine(0)
        assert content(mirror) == before, step
        if not died:
            break
    assert 5 < step < 199


def test_nothing_is_pruned_while_others_publish(mirror: DirectoryMirror) -> None:
    with mirror.writing(), mirror.writing():
        with pytest.raises(EnvironmentLacking) as caught, mirror.pruning(0.2):
            raise AssertionError("pruned")
        assert caught.value.code == "mirror-busy"
    entered = threading.Event()

    def publish() -> None:
        with mirror.writing():
            entered.set()

    with mirror.pruning(0.2):
        other = threading.Thread(target=publish)
        other.start()
        assert not entered.wait(0.2)
    other.join(HUNG)
    assert entered.is_set()


def test_publishers_that_overlap_for_ever_do_not_keep_a_pruning_out(mirror: DirectoryMirror) -> None:
    context = multiprocessing.get_context("fork")
    turns = context.Semaphore(0), context.Semaphore(0)
    others = [context.Process(target=_publish_by_turns, args=(mirror, *turns, first)) for first in (True, False)]
    for other in others:
        other.start()
    try:
        assert turns[1].acquire(timeout=HUNG)
        turns[1].release()
        with mirror.pruning(HUNG):
            pass
    finally:
        for other in others:
            other.kill()
            other.join()


def _publish_by_turns(mirror: DirectoryMirror, one: Semaphore, two: Semaphore, first: bool) -> None:
    """Let go of the lock only after the other has taken it, or cannot."""
    mine, other = (one, two) if first else (two, one)
    if not first:
        other.acquire()
    while True:
        with mirror.writing():
            mine.release()
            other.acquire(timeout=1)


def test_who_publishes_may_begin_again_while_a_pruning_waits(mirror: DirectoryMirror) -> None:
    waiting = threading.Event()

    def prune() -> None:
        waiting.set()
        with contextlib.suppress(EnvironmentLacking), mirror.pruning(HUNG):
            pass

    with mirror.writing():
        pruner = threading.Thread(target=prune)
        pruner.start()
        assert waiting.wait(HUNG)
        while _free(mirror.place.root / ".lock" / "gate"):
            pass
        with mirror.writing():
            assert pruner.is_alive()
    pruner.join(HUNG)
    assert not pruner.is_alive()


def _free(path: Path) -> bool:
    try:
        with file_locked(path, timeout=0):
            return True
    except TimeoutError:
        return False
    except FileNotFoundError:
        return True


def test_a_pruning_that_was_killed_before_its_list_leaves_no_folder(mirror: DirectoryMirror, store: Store) -> None:
    begun = mirror.place.root / ".quarantine" / "20270115T080000Z.0123abcd"
    begun.mkdir(parents=True)
    with mirror.pruning(1) as pruning:
        pruning.empty_quarantine(0)
    assert not begun.exists()


def test_a_folder_with_no_moment_in_its_name_is_no_pruning(mirror: DirectoryMirror) -> None:
    aside = mirror.place.root / ".quarantine" / "20269999T999999Z.00000000"
    aside.mkdir(parents=True)
    (aside / "list.json").write_text("{}")
    with mirror.pruning(1) as pruning:
        assert pruning.quarantined() == ()
        assert pruning.empty_quarantine(1e12) == 0
        with pytest.raises(UsageError) as caught:
            pruning.restore(aside.name)
    assert caught.value.code == "quarantine-unknown"


def test_what_a_pruning_removed_is_missing_with_the_command_that_restores_it(
    full: tuple[DirectoryMirror, RemovalList],
) -> None:
    mirror, leaving = full
    repository, digest = mirror.repository("tiny"), leaving.tags[0][2]
    with mirror.pruning(1) as pruning:
        stamp = pruning.quarantine(leaving, 1_800_000_000.0)
        pruning.quarantine(RemovalList((), (), ()), 1_800_000_001.0)
    for reference in ("1", digest):
        with pytest.raises(UsageError, match="no such tag or digest") as caught:
            read_published(repository, reference)
        assert caught.value.code == "reference-missing"
        hint = caught.value.problems[0].hint
        assert hint == f"a pruning removed it: `relbuild prune {mirror.url} --undo {stamp}` restores it"
    for other in ("3", Digest.of(b"other")):
        with pytest.raises(UsageError, match="no such tag or digest") as caught:
            read_published(repository, other)
        assert caught.value.problems[0].hint == "tags: 2"
    (mirror.place.root / ".quarantine" / stamp / "list.json").write_text("{")
    with pytest.raises(UsageError, match="no such tag or digest") as caught:
        read_published(repository, digest)
    assert caught.value.problems[0].hint == "tags: 2"
