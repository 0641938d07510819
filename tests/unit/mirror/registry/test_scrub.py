"""A registry is scrubbed through its API: what it gives rotten is sent again, and what it keeps is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.damage_memory import DamageMemory
from pipeline.mirror.known_blobs import KnownInRun
from pipeline.mirror.protocol import Arrival
from pipeline.mirror.repair_sources import STORE_SOURCE, RepairSources
from pipeline.model.manifests import Manifest
from pipeline.model.scrub import (
    DamageKind,
    RepairOutcome,
    ScrubbedObject,
    ScrubResult,
)
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.registry_fake import FakeRegistry, Fault, Request


def opened(registry: FakeRegistry, store: Store) -> RegistryMirror:
    url = f"registry+http://{registry.host}/team"
    known = KnownInRun(url, store, lambda: 1_800_000_000.0)
    return open_registry(url, environment={}, progress=QUIET, known=known)


def filled(registry: FakeRegistry, store: Store) -> Manifest:
    with opened(registry, store) as mirror:
        put = mirror_images.publish(mirror.repository("tiny"), store, mirror_images.image(store, 1), "1.0")
        mirror_images.attach(mirror.repository("tiny"), put.descriptor, "a note")
        return put


def scrub(registry: FakeRegistry, store: Store) -> ScrubResult:
    with opened(registry, store) as mirror:
        return mirror.scrub(RepairSources(store), rate=0, progress=QUIET)


def rot(registry: FakeRegistry, digest: Digest) -> None:
    held = registry.held("team/tiny")
    if str(digest) in held.blobs:
        data = held.blobs[str(digest)]
        held.blobs[str(digest)] = bytes([data[0] ^ 1]) + data[1:]
    else:
        kind, data = held.manifests[str(digest)]
        held.manifests[str(digest)] = (kind, data.replace(b"tiny", b"tinY"))


def test_a_whole_registry_is_said_to_be_whole(registry: FakeRegistry, store: Store) -> None:
    filled(registry, store)
    done = scrub(registry, store)
    assert (done.blobs, done.manifests, done.tags) == (4, 2, 1)
    assert not done.findings


def test_a_rotten_layer_is_sent_again_from_the_store(registry: FakeRegistry, store: Store) -> None:
    filled(registry, store)
    assert not scrub(registry, store).findings
    layer = mirror_images.image(store, 1).layers[0].blob.digest
    rot(registry, layer)
    done = scrub(registry, store)
    assert [(one.thing, one.wrong, one.name, one.fate, one.source) for one in done.findings] == [
        (ScrubbedObject.BLOB, DamageKind.ROTTEN, str(layer), RepairOutcome.HEALED, STORE_SOURCE)
    ]
    assert Digest.of(registry.held("team/tiny").blobs[str(layer)]) == layer


def test_what_the_registry_keeps_is_told(registry: FakeRegistry, store: Store) -> None:
    filled(registry, store)
    layer = mirror_images.image(store, 1).layers[0].blob.digest
    rot(registry, layer)

    def drops(request: Request) -> None:
        request.read()
        request.answer(201, Location="/v2/x", Docker_Content_Digest=str(layer))

    registry.faults = [Fault("PUT", "/blobs/uploads/", drops)]
    done = scrub(registry, store)
    assert [(one.name, one.fate) for one in done.lost] == [(str(layer), RepairOutcome.KEPT)] and done.kept == done.lost


@pytest.mark.parametrize("more", [7, -1])
@pytest.mark.parametrize("tag", ["0", "zzz"])
def test_a_size_that_only_a_manifest_claims_is_no_damage_of_the_layer(
    registry: FakeRegistry, store: Store, more: int, tag: str
) -> None:
    """Which all images share: nobody is told to remove it."""
    made = filled(registry, store)
    document = json.loads(made.data)
    for layer in document["layers"]:
        layer["size"] += more
    planted = Manifest(made.media_type, canonical_json(document))
    held = registry.held("team/tiny")
    held.manifests[str(planted.digest)] = (planted.media_type, planted.data)
    held.tags[tag] = str(planted.digest)
    before = dict(held.blobs)
    done = scrub(registry, store)
    assert {(one.thing, one.fate) for one in done.findings} <= {(ScrubbedObject.MANIFEST, RepairOutcome.LOST)}
    with opened(registry, store) as mirror, pytest.raises(VerificationError, match="blob-size") as caught:
        layer = mirror_images.image(store, 1).layers[0].blob
        mirror.repository("tiny").check_blob(replace(layer, size=layer.size + more))
    assert "is intact" in str(caught.value)
    assert not DamageMemory(store, f"registry+http://{registry.host}/team").latest() and held.blobs == before


def test_a_manifest_with_wrong_sizes_is_told_where_it_is_read_first(registry: FakeRegistry, store: Store) -> None:
    made = filled(registry, store)
    document = json.loads(made.data)
    document["layers"][0]["size"] += 1
    planted = Manifest(made.media_type, canonical_json(document))
    held = registry.held("team/tiny")
    held.manifests[str(planted.digest)] = (planted.media_type, planted.data)
    held.tags = {"1.0": str(planted.digest)}
    (found,) = scrub(registry, store).findings
    assert (found.thing, found.name, found.fate) == (
        ScrubbedObject.MANIFEST,
        str(planted.digest),
        RepairOutcome.LOST,
    )


def keeps_blobs(registry: FakeRegistry) -> None:
    """As docker-registry: what has a blob's name is not replaced."""
    kept = {digest: data for name in registry.repositories for digest, data in registry.held(name).blobs.items()}

    def drop(request: Request) -> None:
        digest = unquote(request.path.rpartition("digest=")[2])
        data = request.read()
        registry.held("team/tiny").blobs[digest] = kept.get(digest, data)
        request.answer(201, Location="/v2/x", Docker_Content_Digest=digest)

    registry.faults = [Fault("PUT", "/blobs/uploads/", drop, times=1000)]


@pytest.mark.parametrize("found_by", ["scrub", "verify"])
def test_what_was_found_rotten_is_read_by_the_next_publication(
    found_by: str, registry: FakeRegistry, store: Store, tmp_path: Path
) -> None:
    """Of another image, too, that shares the layer: no tag moves. Who found nothing takes the registry's word."""
    filled(registry, store)
    layer = mirror_images.image(store, 1).layers[0].blob
    rot(registry, layer.digest)
    keeps_blobs(registry)
    if found_by == "scrub":
        assert scrub(registry, store).kept
    else:
        with opened(registry, store) as mirror, pytest.raises(VerificationError, match="relbuild scrub"):
            mirror.repository("tiny").check_blob(layer)
    with opened(registry, Store.open(tmp_path / "innocent")) as mirror:
        assert mirror.repository("tiny").put_blob(layer, store.blob(layer.digest)) is Arrival.PRESENT
    for deleted in (False, False, True):  # it stays so, also when it was deleted by name and is taken anew
        if deleted:
            del registry.held("team/tiny").blobs[str(layer.digest)]
        with opened(registry, store) as mirror, pytest.raises(VerificationError) as caught:
            mirror.repository("tiny").put_blob(layer, store.blob(layer.digest))
        assert caught.value.code == "mirror-rotten"
    assert DamageMemory(store, f"registry+http://{registry.host}/team").latest()


def test_what_was_found_rotten_and_is_read_intact_is_taken_at_the_registrys_word_again(
    registry: FakeRegistry, store: Store
) -> None:
    filled(registry, store)
    layer = mirror_images.image(store, 1).layers[0].blob
    good = registry.held("team/tiny").blobs[str(layer.digest)]
    rot(registry, layer.digest)
    with opened(registry, store) as mirror, pytest.raises(VerificationError):
        mirror.repository("tiny").check_blob(layer)
    registry.held("team/tiny").blobs[str(layer.digest)] = good  # its operator mended it

    def reads() -> int:
        before = registry.count("GET", f"/blobs/{layer.digest}")
        with opened(registry, store) as mirror:
            assert mirror.repository("tiny").put_blob(layer, store.blob(layer.digest)) is Arrival.PRESENT
        return registry.count("GET", f"/blobs/{layer.digest}") - before

    assert [reads(), reads()] == [1, 0]


def test_a_rotten_manifest_and_a_missing_blob_that_nobody_has_are_told_by_name(
    registry: FakeRegistry, store: Store, tmp_path: Path
) -> None:
    put = filled(registry, store)
    made = mirror_images.image(store, 1)
    del registry.held("team/tiny").blobs[str(made.layers[1].blob.digest)]
    done = scrub(registry, Store.open(tmp_path / "empty"))
    assert [(one.wrong, one.name, one.fate) for one in done.findings] == [
        (DamageKind.MISSING, str(made.layers[1].blob.digest), RepairOutcome.LOST)
    ]
    rot(registry, put.digest)
    found = {(one.thing, one.wrong, one.name) for one in scrub(registry, Store.open(tmp_path / "empty")).lost}
    assert (ScrubbedObject.MANIFEST, DamageKind.ROTTEN, str(put.digest)) in found


def test_a_scrub_that_broke_off_goes_on(registry: FakeRegistry, store: Store) -> None:
    filled(registry, store)

    def gone(request: Request) -> None:
        request.answer(500)

    layer = mirror_images.image(store, 1).layers[1].blob.digest
    registry.faults = [Fault("GET", f"/blobs/{layer}", gone, times=50)]
    with pytest.raises(EnvironmentLacking):
        scrub(registry, store)
    registry.faults = []
    done = scrub(registry, store)
    assert done.earlier >= 1
    assert done.earlier + done.blobs == 4
    assert scrub(registry, store).earlier == 0
