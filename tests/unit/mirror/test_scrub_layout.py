"""A layout is scrubbed like a directory: what index.json leads to is whole, healed, or told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror, open_layout
from pipeline.mirror.backends.layout.layout_scrub import scrub_layout
from pipeline.mirror.repair_sources import STORE_SOURCE, RepairSources
from pipeline.model.scrub import (
    DamageKind,
    RepairOutcome,
    ScrubbedObject,
    ScrubResult,
)
from pipeline.oci import blob_path
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.unit.mirror.directory.test_reuse import flip, rotten


@pytest.fixture
def layout(tmp_path: Path, store: Store) -> LayoutMirror:
    return filled(tmp_path / "layout", store)


def filled(path: Path, store: Store) -> LayoutMirror:
    mirror = open_layout(path, create=True)
    put = mirror_images.publish(mirror.repository(""), store, mirror_images.image(store, 1), "1.0")
    mirror_images.attach(mirror.repository(""), put.descriptor, "a note")
    return mirror


def scrub(mirror: LayoutMirror, store: Store, *others: LayoutMirror) -> ScrubResult:
    return scrub_layout(mirror, RepairSources(store, others), rate=0, progress=QUIET)


def test_a_whole_layout_is_said_to_be_whole(layout: LayoutMirror, store: Store) -> None:
    done = scrub(layout, store)
    assert (done.blobs, done.manifests, done.tags) == (6, 2, 1)
    assert not done.findings


def test_what_is_rotten_is_healed_from_the_store_or_another_mirror(
    layout: LayoutMirror, store: Store, tmp_path: Path
) -> None:
    other = filled(tmp_path / "other", store)
    made = mirror_images.image(store, 1)
    for digest in (made.layers[0].blob.digest, made.digest, mirror_images.EMPTY.digest):
        flip(blob_path(layout.path, digest))
    blob_path(layout.path, made.config_descriptor.digest).unlink()
    done = scrub(layout, store, other)
    assert {(one.name, one.wrong, one.fate) for one in done.findings} == {
        (str(made.layers[0].blob.digest), DamageKind.ROTTEN, RepairOutcome.HEALED),
        (str(made.digest), DamageKind.ROTTEN, RepairOutcome.HEALED),
        (str(mirror_images.EMPTY.digest), DamageKind.ROTTEN, RepairOutcome.HEALED),
        (str(made.config_descriptor.digest), DamageKind.MISSING, RepairOutcome.HEALED),
    }
    assert {one.source for one in done.findings} == {STORE_SOURCE, f"oci:{other.path}"}
    assert len(rotten(layout.path)) == 3
    assert not scrub(layout, store).findings


def test_what_nobody_has_is_lost_and_what_nothing_needs_is_not(
    layout: LayoutMirror, store: Store, tmp_path: Path
) -> None:
    blob_path(layout.path, Digest.of(b"one")).write_bytes(b"two")
    layer = mirror_images.image(store, 1).layers[0].blob.digest
    flip(blob_path(layout.path, layer))
    done = scrub(layout, Store.open(tmp_path / "empty"))
    assert {(one.thing, one.name, one.fate) for one in done.findings} == {
        (ScrubbedObject.BLOB, str(layer), RepairOutcome.LOST),
        (ScrubbedObject.BLOB, str(Digest.of(b"one")), RepairOutcome.ASIDE),
    }
    assert [one.wrong for one in scrub(layout, Store.open(tmp_path / "empty")).lost] == [DamageKind.MISSING]


def test_drafts_of_killed_processes_go_and_those_of_other_programs_stay(layout: LayoutMirror, store: Store) -> None:
    (layout.drafts / "draft-x").write_bytes(b"half")
    (layout.drafts / "oras_1234").write_bytes(b"half")
    assert scrub(layout, store).drafts == 1
    assert [path.name for path in layout.drafts.iterdir()] == ["oras_1234"]
