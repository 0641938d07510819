"""A layout is scrubbed like a directory: what index.json leads to is whole, healed, or told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror, open_layout
from pipeline.mirror.backends.layout.layout_scrub import scrub_layout
from pipeline.mirror.healing import STORE, Healing
from pipeline.model.scrub import Fate, Scrubbed, Thing, Wrong
from pipeline.oci import blob_path
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.unit import mirrored
from tests.unit.directory.test_reuse import flip, rotten


@pytest.fixture
def layout(tmp_path: Path, store: Store) -> LayoutMirror:
    return filled(tmp_path / "layout", store)


def filled(path: Path, store: Store) -> LayoutMirror:
    mirror = open_layout(path, create=True)
    put = mirrored.publish(mirror.repository(""), store, mirrored.image(store, 1), "1.0")
    mirrored.attach(mirror.repository(""), put.descriptor, "a note")
    return mirror


def scrub(mirror: LayoutMirror, store: Store, *others: LayoutMirror) -> Scrubbed:
    return scrub_layout(mirror, Healing(store, others), rate=0, progress=QUIET)


def test_a_whole_layout_is_said_to_be_whole(layout: LayoutMirror, store: Store) -> None:
    done = scrub(layout, store)
    assert (done.blobs, done.manifests, done.tags) == (6, 2, 1)
    assert not done.findings


def test_what_is_rotten_is_healed_from_the_store_or_another_mirror(
    layout: LayoutMirror, store: Store, tmp_path: Path
) -> None:
    other = filled(tmp_path / "other", store)
    made = mirrored.image(store, 1)
    for digest in (made.layers[0].blob.digest, made.digest, mirrored.EMPTY.digest):
        flip(blob_path(layout.path, digest))
    blob_path(layout.path, made.config_descriptor.digest).unlink()
    done = scrub(layout, store, other)
    assert {(one.name, one.wrong, one.fate) for one in done.findings} == {
        (str(made.layers[0].blob.digest), Wrong.ROTTEN, Fate.HEALED),
        (str(made.digest), Wrong.ROTTEN, Fate.HEALED),
        (str(mirrored.EMPTY.digest), Wrong.ROTTEN, Fate.HEALED),
        (str(made.config_descriptor.digest), Wrong.MISSING, Fate.HEALED),
    }
    assert {one.source for one in done.findings} == {STORE, f"oci:{other.path}"}
    assert len(rotten(layout.path)) == 3
    assert not scrub(layout, store).findings


def test_what_nobody_has_is_lost_and_what_nothing_needs_is_not(
    layout: LayoutMirror, store: Store, tmp_path: Path
) -> None:
    blob_path(layout.path, Digest.of(b"one")).write_bytes(b"two")
    layer = mirrored.image(store, 1).layers[0].blob.digest
    flip(blob_path(layout.path, layer))
    done = scrub(layout, Store.open(tmp_path / "empty"))
    assert {(one.thing, one.name, one.fate) for one in done.findings} == {
        (Thing.BLOB, str(layer), Fate.LOST),
        (Thing.BLOB, str(Digest.of(b"one")), Fate.ASIDE),
    }
    assert [one.wrong for one in scrub(layout, Store.open(tmp_path / "empty")).lost] == [Wrong.MISSING]


def test_drafts_of_killed_processes_go_and_those_of_other_programs_stay(layout: LayoutMirror, store: Store) -> None:
    (layout.drafts / "draft-x").write_bytes(b"half")
    (layout.drafts / "oras_1234").write_bytes(b"half")
    assert scrub(layout, store).drafts == 1
    assert [path.name for path in layout.drafts.iterdir()] == ["oras_1234"]
