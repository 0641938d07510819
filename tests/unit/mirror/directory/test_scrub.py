"""Everything on a directory is read; what is rotten, missing or planted is put aside, and healed where it can be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.mirror.backends.directory import directory_scrub as scrubbing
from pipeline.mirror.backends.directory import scrub_record
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.mirror.backends.directory.directory_scrub import scrub_directory
from pipeline.mirror.references import fallback_tag
from pipeline.mirror.repair_sources import STORE_SOURCE, ReadThrottle, RepairSources
from pipeline.model.manifests import Manifest
from pipeline.model.scrub import (
    DamageKind,
    RepairOutcome,
    ScrubbedObject,
    ScrubResult,
)
from pipeline.progress import QUIET, Task
from pipeline.store import Store
from tests.support import mirror_images
from tests.unit.mirror.directory.test_reuse import flip, rotten


def scrub(mirror: DirectoryMirror, store: Store, *others: DirectoryMirror, rate: int = 0) -> ScrubResult:
    return scrub_directory(mirror, RepairSources(store, others), rate=rate, progress=QUIET)


def told(done: ScrubResult) -> set[tuple[ScrubbedObject, DamageKind, RepairOutcome]]:
    return {(one.thing, one.wrong, one.fate) for one in done.findings}


@pytest.fixture
def put(mirror: DirectoryMirror, store: Store) -> Manifest:
    """Version 1 of `tiny`, with a note."""
    image = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    mirror_images.attach(mirror.repository("tiny"), image.descriptor, "a note")
    return image


@pytest.fixture
def layers(store: Store) -> list[Digest]:
    return [one.blob.digest for one in mirror_images.image(store, 1).layers]


def test_a_whole_mirror_is_said_to_be_whole(mirror: DirectoryMirror, store: Store, put: Manifest) -> None:
    before = mirror_images.all_files(mirror.place.root)
    done = scrub(mirror, store)
    assert (done.blobs, done.manifests, done.tags, done.earlier) == (4, 3, 2, 0)
    assert done.bytes_read == sum(path.stat().st_size for path in mirror.place.blobs.iterdir())
    assert not done.findings
    assert done.json()["whole"] is True
    after = mirror_images.all_files(mirror.place.root)
    assert {name: data for name, data in after.items() if not name.startswith(".scrub")} == before


def test_a_rotten_layer_is_healed_from_the_store(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest]
) -> None:
    spoiled = flip(mirror.place.blob(layers[0]))
    done = scrub(mirror, store)
    (found,) = done.findings
    assert (found.thing, found.wrong, found.fate) == (ScrubbedObject.BLOB, DamageKind.ROTTEN, RepairOutcome.HEALED)
    assert (found.name, found.repository, found.source) == (str(layers[0]), "tiny", STORE_SOURCE)
    assert rotten(mirror.place.root) == [spoiled]
    mirror_images.whole(mirror)
    assert not scrub(mirror, store).findings


def test_what_the_store_has_not_comes_from_another_mirror(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest], tmp_path: Path
) -> None:
    other = open_directory(tmp_path / "other", create=True, clock=time.time)
    image = mirror_images.publish(other.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    flip(mirror.place.blob(layers[1]))
    mirror.place.blob(layers[0]).unlink()
    flip(mirror.place.paths("tiny").manifest_file(image.descriptor))
    empty = Store.open(tmp_path / "empty")
    done = scrub(mirror, empty, other)
    assert told(done) == {
        (ScrubbedObject.BLOB, DamageKind.ROTTEN, RepairOutcome.HEALED),
        (ScrubbedObject.BLOB, DamageKind.MISSING, RepairOutcome.HEALED),
        (ScrubbedObject.MANIFEST, DamageKind.ROTTEN, RepairOutcome.HEALED),
    }
    assert {one.source for one in done.findings} == {f"dir:{other.place.root}/tiny"}
    mirror_images.whole(mirror)


def test_what_nobody_has_is_put_aside_told_by_name_and_told_again(
    mirror: DirectoryMirror, put: Manifest, layers: list[Digest], tmp_path: Path
) -> None:
    empty = Store.open(tmp_path / "empty")
    spoiled = flip(mirror.place.blob(layers[0]))
    done = scrub(mirror, empty)
    assert [(one.name, one.fate) for one in done.lost] == [(str(layers[0]), RepairOutcome.LOST)]
    assert done.json()["healed"] is False
    assert rotten(mirror.place.root) == [spoiled]
    again = scrub(mirror, empty)
    assert [(one.name, one.wrong) for one in again.lost] == [(str(layers[0]), DamageKind.MISSING)]


def test_what_another_mirror_has_rotten_too_heals_nothing(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest], tmp_path: Path
) -> None:
    other = open_directory(tmp_path / "other", create=True, clock=time.time)
    mirror_images.publish(other.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    for one in (mirror, other):
        flip(one.place.blob(layers[0]))
    assert len(scrub(mirror, Store.open(tmp_path / "empty"), other).lost) == 1


def test_a_rotten_list_of_referrers_is_made_anew_from_what_speaks(
    mirror: DirectoryMirror, store: Store, put: Manifest
) -> None:
    paths = mirror.place.paths("tiny")
    listed = paths.referrers(put.digest)
    target = paths.target(fallback_tag(put.digest))
    assert target is not None
    path = paths.find(target)
    assert path is not None
    flip(path)
    done = scrub(mirror, store)
    assert told(done) == {(ScrubbedObject.REFERRERS, DamageKind.OUTDATED, RepairOutcome.HEALED)}
    assert paths.referrers(put.digest) == listed
    paths.drop(fallback_tag(put.digest))
    assert told(scrub(mirror, store)) == {(ScrubbedObject.REFERRERS, DamageKind.OUTDATED, RepairOutcome.HEALED)}
    assert paths.referrers(put.digest) == listed
    mirror_images.whole(mirror)


def test_planted_links_are_put_aside(mirror: DirectoryMirror, store: Store, put: Manifest, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    paths = mirror.place.paths("tiny")
    (paths.tags / "evil").symlink_to(tmp_path / "secret")
    mirror.place.blob(Digest.of(b"x")).symlink_to(tmp_path / "secret")
    (paths.manifests / f"{Digest.of(b'y').hex}.oci-image").symlink_to(tmp_path / "secret")
    done = scrub(mirror, store)
    assert told(done) == {
        (ScrubbedObject.TAG, DamageKind.ROTTEN, RepairOutcome.LOST),
        (ScrubbedObject.BLOB, DamageKind.ROTTEN, RepairOutcome.ASIDE),
        (ScrubbedObject.MANIFEST, DamageKind.ROTTEN, RepairOutcome.LOST),
    }
    assert not list(mirror.place.blobs.glob(Digest.of(b"x").hex))
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert paths.tag_names() == ("1.0", fallback_tag(put.digest))


def test_lists_and_leftovers_are_brought_up_to_date(mirror: DirectoryMirror, store: Store, put: Manifest) -> None:
    (mirror.place.repositories / "tiny" / "_tags.json").write_bytes(b"[]")
    (mirror.place.root / "catalog.json").unlink()
    (mirror.place.drafts / "tmpleft").write_bytes(b"half")
    done = scrub(mirror, store)
    assert done.drafts == 1
    assert told(done) == {(ScrubbedObject.LISTING, DamageKind.OUTDATED, RepairOutcome.HEALED)}
    assert len(done.findings) == 2
    mirror_images.whole(mirror)


def test_a_blob_that_nothing_needs_is_put_aside_without_a_loss(mirror: DirectoryMirror, store: Store) -> None:
    mirror.place.blob(Digest.of(b"one")).write_bytes(b"two")
    done = scrub(mirror, store)
    assert told(done) == {(ScrubbedObject.BLOB, DamageKind.ROTTEN, RepairOutcome.ASIDE)}
    assert not done.lost


def test_a_tag_whose_manifest_is_gone_is_healed_or_told(
    mirror: DirectoryMirror, store: Store, put: Manifest, tmp_path: Path
) -> None:
    other = open_directory(tmp_path / "other", create=True, clock=time.time)
    mirror_images.publish(other.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
    mirror.place.paths("tiny").manifest_file(put.descriptor).unlink()
    assert told(scrub(mirror, store)) == {(ScrubbedObject.MANIFEST, DamageKind.MISSING, RepairOutcome.LOST)}
    assert told(scrub(mirror, store, other)) == {(ScrubbedObject.MANIFEST, DamageKind.MISSING, RepairOutcome.HEALED)}
    mirror_images.whole(mirror)


# --- under way


def test_a_scrub_that_was_killed_goes_on_where_it_was(
    mirror: DirectoryMirror, store: Store, put: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in mirror.place.blobs.iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr("pipeline.mirror.known_blobs.SETTLED_NANOSECONDS", 0)
    monkeypatch.setattr(scrub_record, "_NOTED", 1)
    seen: list[Path] = []
    real = scrubbing.hash_file

    def killed_at_the_third(*arguments: object) -> object:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(Path(str(arguments[1])))
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(scrubbing, "hash_file", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        scrub(mirror, store)
    monkeypatch.setattr(scrubbing, "hash_file", real)
    done = scrub(mirror, store)
    assert (done.earlier, done.blobs) == (2, 2)
    assert not done.findings
    assert scrub(mirror, store).earlier == 0  # that one was ended: the next reads all of it


def test_what_is_touched_after_it_was_read_is_read_again(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.mirror.known_blobs.SETTLED_NANOSECONDS", 0)
    scrub(mirror, store)
    known = mirror.place.known
    assert known.believes(layers[0], _stamp(mirror, layers[0]))
    flip(mirror.place.blob(layers[0]))
    assert not known.believes(layers[0], _stamp(mirror, layers[0]))


def _stamp(mirror: DirectoryMirror, digest: Digest) -> tuple[int, int, int, int]:
    found = mirror.place.blob(digest).stat()
    return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def test_what_publishers_and_pruners_do_meanwhile_is_no_finding(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer is read rotten, and before it is put aside a publisher has healed it; another is pruned."""
    repository = mirror.repository("tiny")
    made = mirror_images.image(store, 1)
    flip(mirror.place.blob(layers[0]))
    mirror.place.blob(Digest.of(b"one")).write_bytes(b"two")
    real = mirror.writing
    done = []

    @contextmanager
    def meanwhile(self: DirectoryMirror) -> Iterator[None]:
        if not done:
            done.append(True)
            repository.put_blob(made.layers[0].blob, store.blob(layers[0]))
            mirror.place.blob(Digest.of(b"one")).unlink()
        done.append(True)
        with real():
            yield

    monkeypatch.setattr(DirectoryMirror, "writing", meanwhile)
    assert not scrub(mirror, store).findings
    mirror_images.whole(mirror)


def test_it_reads_no_faster_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    throttle = ReadThrottle(1000)
    for _ in range(10):
        throttle.wait(500)
    assert sum(slept) == pytest.approx(5.0)
    ReadThrottle(0).wait(1 << 40)
    assert sum(slept) == pytest.approx(5.0)


_HUGE = b'{"began":1' + b"0" * 400 + b"}"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b'{"began":"x"}', b'{"began":"9e99"}', b"\xff", _HUGE, b"[" * 4000]
)
def test_a_damaged_record_of_the_run_begins_anew(
    mirror: DirectoryMirror, store: Store, put: Manifest, data: bytes
) -> None:
    (mirror.place.root / ".scrub").mkdir(exist_ok=True)
    (mirror.place.root / ".scrub" / "run.json").write_bytes(data)
    assert scrub(mirror, store).blobs == 4
    assert not (mirror.place.root / ".scrub" / "run.json").exists()


def test_json_says_all_of_it(mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest]) -> None:
    flip(mirror.place.blob(layers[0]))
    value = json.loads(json.dumps(scrub(mirror, store).json()))
    assert value["findings"] == [
        {
            "thing": "blob",
            "wrong": "rotten",
            "name": str(layers[0]),
            "repository": "tiny",
            "fate": "healed",
            "source": "the store",
        }
    ]
    assert value["healed"]
    assert not value["whole"]


def test_a_configuration_that_follows_links_is_told(mirror: DirectoryMirror, store: Store, put: Manifest) -> None:
    told: list[str] = []

    class Told:
        def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
            return QUIET.start(stage, label)

        def finish(self, task: Task, *, failed: bool = False) -> None: ...

        def warn(self, text: str) -> None:
            told.append(text)

    scrub_directory(mirror, RepairSources(store), rate=0, progress=Told())
    assert not told
    (mirror.place.root / "nginx.conf").write_text("server { }")
    scrub_directory(mirror, RepairSources(store), rate=0, progress=Told())
    assert len(told) == 1
    assert "follow symlinks" in told[0]


def test_a_size_that_only_a_manifest_claims_ends_no_scrub(
    mirror: DirectoryMirror, store: Store, put: Manifest, layers: list[Digest]
) -> None:
    def with_other_sizes(more: int) -> Manifest:
        document = json.loads(put.data)
        for layer in document["layers"]:
            layer["size"] += more
        return Manifest(put.media_type, canonical_json(document))

    planted = next(one for one in map(with_other_sizes, range(1, 99)) if one.digest < put.digest)  # read first
    (mirror.place.repositories / "tiny" / "_manifests" / f"{planted.digest.hex}.oci-image").write_bytes(planted.data)
    mirror.place.blob(layers[0]).unlink()
    flip(mirror.place.blob(layers[1]))
    assert not scrub(mirror, store).lost
    mirror_images.whole(mirror)
