"""What speaks of an image on a registry, with and without the referrers API, and what is removed there."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.mirror.backends.registry import referrers_list as listing_module
from pipeline.mirror.backends.registry.fallback_index import merge_referrers
from pipeline.mirror.protocol import TagConflict
from pipeline.mirror.references import fallback_tag, listed_referrers, referrer_of, referrers_index
from pipeline.model.manifests import Manifest
from pipeline.oci import media_types
from pipeline.transfer import RegistryResponse
from tests.support.patience import HUNG
from tests.support.registry_contents import (
    EMPTY,
    IMAGE,
    manifest,
    open_mirror,
    put,
)
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry

# --- referrers


def test_the_referrers_api_lists_what_is_attached_page_by_page() -> None:
    with fake_registry(page=2) as registry, open_mirror(registry) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        assert app.referrers(subject.digest) == ()
        notes = [manifest(str(number), subject) for number in range(5)]
        assert [app.attach(note) for note in notes] == [True] * 5
        assert [app.attach(note) for note in notes] == [False] * 5
        found = app.referrers(subject.digest)
        assert found == tuple(sorted((referrer_of(note) for note in notes), key=lambda one: one.descriptor.digest))
        assert {one.annotation("note") for one in found} == set("01234")
        assert registry.held(IMAGE).tags == {}


def test_without_the_api_it_is_asked_for_once_and_an_index_is_kept(old: FakeRegistry) -> None:
    with open_mirror(old) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        notes = [manifest(str(number), subject) for number in range(3)]
        assert [app.attach(note) for note in notes] == [True] * 3
        assert [app.attach(note) for note in notes] == [False] * 3
        assert {one.descriptor.digest for one in app.referrers(subject.digest)} == {note.digest for note in notes}
        assert old.count("GET", "/referrers/") <= 1
        assert set(old.held(IMAGE).tags) == {fallback_tag(subject.digest)}


def test_a_referrer_that_was_put_and_not_listed_is_listed_by_the_next_run(old: FakeRegistry) -> None:
    subject = manifest("subject")
    note = put(old.held(IMAGE), manifest("note", subject))
    with open_mirror(old) as mirror:
        assert mirror.repository("app").attach(note) is True
        assert len(mirror.repository("app").referrers(subject.digest)) == 1


def test_an_entry_that_says_something_else_than_its_manifest_is_replaced(old: FakeRegistry) -> None:
    subject = manifest("subject")
    note = manifest("note", subject)
    with open_mirror(old) as mirror:
        app = mirror.repository("app")
        app.attach(note)
        entry = referrer_of(note)
        altered = replace(entry, artifact_type="application/x-other")
        held = old.held(IMAGE)
        put(held, referrers_index([altered]), fallback_tag(subject.digest))
        assert app.referrers(subject.digest) == (altered,)
        app.attach_all([note])
        assert app.referrers(subject.digest) == (entry,)


def test_lists_of_different_subjects_do_not_wait_for_one_another(old: FakeRegistry) -> None:
    """Each list is written only when the other is being written as well."""
    together = threading.Barrier(2, timeout=HUNG)
    subjects = [manifest("one"), manifest("other")]
    with open_mirror(old) as mirror:
        app = mirror.repository("app")
        put_manifest = app._listing._put

        def putting(reference: str, one: Manifest) -> RegistryResponse:
            if reference in {fallback_tag(subject.digest) for subject in subjects}:
                together.wait()
            return put_manifest(reference, one)

        app._listing._put = putting
        notes = [manifest("note", subject) for subject in subjects]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(app.attach, notes)) == [True, True]
        for subject, note in zip(subjects, notes, strict=True):
            assert [one.descriptor.digest for one in app.referrers(subject.digest)] == [note.digest]


def test_who_attaches_at_the_same_time_is_listed(old: FakeRegistry) -> None:
    """Each in a process of its own, as far as the registry can tell: with a mirror and locks of its own."""
    subject = manifest("subject")
    notes = [manifest(str(number), subject) for number in range(12)]

    def attach(note: Manifest) -> bool:
        with open_mirror(old) as mirror:
            return mirror.repository("app").attach(note)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(attach, notes))
    with open_mirror(old) as mirror:
        assert {one.descriptor.digest for one in mirror.repository("app").referrers(subject.digest)} == {
            note.digest for note in notes
        }


def test_what_a_writer_took_away_unknowingly_is_put_back(old: FakeRegistry) -> None:
    """He read before we wrote, and writes after it."""
    subject = manifest("subject")
    ours, his = manifest("ours", subject), manifest("his", subject)
    tag = fallback_tag(subject.digest)

    def overwritten(request: Request) -> None:
        old.serve(request)
        put(old.held(IMAGE), merge_referrers(None, add=[referrer_of(his)]), tag)

    old.faults = [Fault("PUT", tag, overwritten)]
    with open_mirror(old) as mirror:
        assert mirror.repository("app").attach(ours)
        found = mirror.repository("app").referrers(subject.digest)
    assert {one.descriptor.digest for one in found} == {ours.digest, his.digest}


def test_a_list_that_others_never_leave_alone_is_given_up(old: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "LISTING_ATTEMPTS", 5)
    monkeypatch.setattr(listing_module, "LISTING_PAUSE_LEAST", 0.001)
    monkeypatch.setattr(listing_module, "LISTING_PAUSE_CONTENDED", 0.001)
    subject = manifest("subject")
    tag = fallback_tag(subject.digest)

    def overwritten(request: Request) -> None:
        old.serve(request)
        put(old.held(IMAGE), merge_referrers(None), tag)

    old.faults = [Fault("PUT", tag, overwritten, 99)]
    with open_mirror(old) as mirror, pytest.raises(EnvironmentLacking) as caught:
        mirror.repository("app").attach(manifest("ours", subject))
    assert caught.value.code == "referrers-contended"


def test_what_others_wrote_into_the_index_is_carried_as_it_is() -> None:
    theirs = {"mediaType": "a/b", "digest": f"sha256:{'f' * 64}", "size": 1, "platform": {"os": "x"}, "future": [1]}
    index = Manifest(media_types.INDEX, json.dumps({"schemaVersion": 2, "manifests": [theirs], "new": True}).encode())
    note = manifest("note", manifest("subject"))
    merged = merge_referrers(index, add=[referrer_of(note)])
    document = json.loads(merged.data)
    assert theirs in document["manifests"]
    assert document["new"] is True
    assert merge_referrers(merged, add=[referrer_of(note)]) == merged
    assert [one.artifact_type for one in listed_referrers(merge_referrers(merged, drop=[Digest("f" * 64)]))] == [
        "test/note"
    ]


def test_an_image_is_listed_with_its_configs_type() -> None:
    document = json.loads(manifest("x", manifest("subject")).data)
    del document["artifactType"]
    assert referrer_of(Manifest(media_types.MANIFEST, canonical_json(document))).artifact_type == EMPTY.media_type


# --- removing


@pytest.mark.parametrize("tag_deletion", [True, False])
def test_a_tag_goes_and_the_manifest_and_its_other_tags_stay(tag_deletion: bool) -> None:
    with fake_registry(tag_deletion=tag_deletion) as registry, open_mirror(registry) as mirror:
        held = registry.held(IMAGE)
        one = put(held, manifest("one"), "1.0", "latest")
        mirror.repository("app").remove_tag("1.0", one.digest)
        assert held.tags == {"latest": str(one.digest)}
        assert set(held.manifests) == {str(one.digest)}
        with pytest.raises(TagConflict):
            mirror.repository("app").remove_tag("latest", manifest("other").digest)


def test_a_tag_that_moves_while_it_is_removed_stays(old: FakeRegistry) -> None:
    held = old.held(IMAGE)
    one, two = put(held, manifest("one"), "1.0"), put(held, manifest("two"))

    def moved(request: Request) -> None:
        old.serve(request)
        held.tags["1.0"] = str(two.digest)

    old.faults = [Fault("PUT", r"/manifests/1\.0", moved)]
    with open_mirror(old) as mirror, pytest.raises(TagConflict) as caught:
        mirror.repository("app").remove_tag("1.0", one.digest)
    assert caught.value.found == two.digest
    assert held.tags == {"1.0": str(two.digest)}


@pytest.mark.parametrize("allowed", [0, 2])
def test_where_nothing_can_be_deleted_a_tag_stays_as_it_is(old: FakeRegistry, allowed: int) -> None:
    """`allowed`: the registry changes its mind after so many deletions."""
    held = old.held(IMAGE)
    one = put(held, manifest("one"), "1.0")
    seen = 0

    def guard(request: Request) -> bool:
        nonlocal seen
        seen += request.command == "DELETE"
        if request.command == "DELETE" and seen > allowed:
            request.refuse(405, "UNSUPPORTED")
            return False
        return True

    old.guard = guard
    with open_mirror(old) as mirror:
        with pytest.raises(RelbuildError) as caught:
            mirror.repository("app").remove_tag("1.0", one.digest)
        assert caught.value.code == "delete-unsupported"
        assert "REGISTRY_STORAGE_DELETE_ENABLED" in str(caught.value)
        assert held.tags == {"1.0": str(one.digest)}
        with pytest.raises(EnvironmentLacking) as caught:
            mirror.repository("app").remove_manifest(one.digest)
        assert caught.value.code == "delete-unsupported"


def test_a_referrer_that_is_removed_leaves_the_list(old: FakeRegistry) -> None:
    with open_mirror(old) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        notes = [manifest(str(number), subject) for number in range(3)]
        for note in notes:
            app.attach(note)
        app.remove_manifest(notes[0].digest)
        app.remove_manifest(notes[0].digest)
        assert {one.descriptor.digest for one in app.referrers(subject.digest)} == {note.digest for note in notes[1:]}


def test_a_list_that_names_what_another_removed_meanwhile_is_read_and_written_again(old: FakeRegistry) -> None:
    """docker-registry refuses an index of which it lacks a part."""
    with open_mirror(old) as mirror, open_mirror(old) as another:
        app, subject = mirror.repository("app"), manifest("subject")
        superseded, kept, new = (manifest(text, subject) for text in ("superseded", "kept", "new"))
        for note in (superseded, kept):
            app.attach(note)

        def removed(request: Request) -> None:
            another.repository("app").remove_referrer(superseded.digest)
            request.refuse(400, "MANIFEST_BLOB_UNKNOWN")

        old.faults.append(Fault("PUT", fallback_tag(subject.digest), removed))
        assert app.attach(new)
        assert {one.annotation("note") for one in app.referrers(subject.digest)} == {"kept", "new"}
        assert app.manifest(superseded.digest) is None


def test_a_list_that_names_what_is_gone_is_mended_by_the_next_who_attaches(old: FakeRegistry) -> None:
    """One who had read the list before something was removed from it has written it since."""
    with open_mirror(old) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        dead, kept, new = (manifest(text, subject) for text in ("dead", "kept", "new"))
        for note in (dead, kept):
            app.attach(note)
        del old.held(IMAGE).manifests[str(dead.digest)]

        def whole(request: Request) -> bool:
            """As docker-registry looks at what is put."""
            if request.command != "PUT" or fallback_tag(subject.digest) not in request.path:
                return True
            data = request.rfile.read(request.unread)
            request.unread, request.rfile = len(data), io.BytesIO(data)  # type: ignore[assignment]
            held = old.held(IMAGE).manifests
            if all(entry["digest"] in held for entry in json.loads(data)["manifests"]):
                return True
            request.refuse(400, "MANIFEST_BLOB_UNKNOWN")
            return False

        old.guard = whole
        assert app.attach(new)
        assert {one.annotation("note") for one in app.referrers(subject.digest)} == {"kept", "new"}


def test_a_list_that_is_refused_for_good_is_told(old: FakeRegistry) -> None:
    with open_mirror(old) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        app.attach(manifest("one", subject))
        old.faults.append(
            Fault("PUT", fallback_tag(subject.digest), lambda request: request.refuse(400, "TAG_INVALID"), 99)
        )
        with pytest.raises(EnvironmentLacking) as caught:
            app.attach(manifest("two", subject))
        assert caught.value.code == "registry-refused"


def test_what_is_superseded_leaves_the_list_before_it_goes(old: FakeRegistry) -> None:
    """A list must not name what is gone, also where whoever removes it is killed."""
    with open_mirror(old) as mirror:
        app, subject = mirror.repository("app"), manifest("subject")
        note = manifest("one", subject)
        app.attach(note)
        old.faults.append(Fault("DELETE", str(note.digest), lambda request: request.cut(), 99))
        with pytest.raises(EnvironmentLacking):
            app.remove_referrer(note.digest)
        assert app.referrers(subject.digest) == () and app.manifest(note.digest) == note
