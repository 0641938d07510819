"""A registry as a mirror, against a registry of distribution-spec 1.1 that fails on demand."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError, VerificationError
from pipeline.mirror import listing as listing_module
from pipeline.mirror import upload as upload_module
from pipeline.mirror.fallback import merge
from pipeline.mirror.references import fallback_tag, listed_referrers, referrer_of
from pipeline.mirror.registry import RegistryMirror, RegistryRepository, open_registry
from pipeline.mirror.repository import Arrival, Overtaken
from pipeline.model.artifact import Manifest
from pipeline.model.image import Descriptor
from pipeline.oci import media_types
from pipeline.oci.image import descriptor_json
from pipeline.progress import QUIET
from pipeline.store import Store
from pipeline.transfer import Network
from tests.unit.registry_fake import FakeRegistry, Fault, Held, Request, fake_registry
from tests.unit.tested import stand_in

NETWORK = Network(timeout=5.0, backoff=0.001, attempts=3)
EMPTY = Descriptor("application/vnd.oci.empty.v1+json", Digest.of(b"{}"), 2)
IMAGE = "ns/app"


def open_mirror(registry: FakeRegistry) -> RegistryMirror:
    return open_registry(f"registry+http://{registry.host}/ns", environment={}, progress=QUIET, network=NETWORK)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as running:
        yield running


@pytest.fixture
def mirror(registry: FakeRegistry) -> Iterator[RegistryMirror]:
    with open_mirror(registry) as opened:
        yield opened


@pytest.fixture
def app(mirror: RegistryMirror) -> RegistryRepository:
    return mirror.repository("app")


def blob(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


def manifest(note: str, subject: Manifest | None = None, **more: object) -> Manifest:
    empty = descriptor_json(EMPTY)
    document = {"schemaVersion": 2, "mediaType": media_types.MANIFEST, "config": empty, "layers": [empty], **more}
    document["annotations"] = {"note": note}
    if subject:
        document |= {"subject": descriptor_json(subject.descriptor), "artifactType": "test/note"}
    return Manifest(media_types.MANIFEST, canonical_json(document))


def put(held: Held, one: Manifest, *tags: str) -> Manifest:
    held.manifests[str(one.digest)] = (one.media_type, one.data)
    held.tags |= dict.fromkeys(tags, str(one.digest))
    return one


# --- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["registry://", "registry:///x", "registry://ho st/x", "registry://h/UP", "http://h/x", "registry://u:p@h/x", "x"],
)
def test_what_is_no_address_is_refused_and_no_password_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_registry(url, environment={}, progress=QUIET)
    assert caught.value.code == "mirror-url"
    assert "u:p" not in str(caught.value)


def test_a_repository_is_named_as_people_and_as_pullers_name_it() -> None:
    with open_registry("registry://Host:5000/a/b/", environment={}, progress=QUIET) as mirror:
        assert mirror.url == "registry://host:5000/a/b"
        assert mirror.repository("c/d").url == "registry://host:5000/a/b/c/d"
        assert mirror.repository("c").identity == "host:5000/a/b/c"
        for name in ("", "C", "../x", "a//b", "a" * 300):
            with pytest.raises(UsageError):
                mirror.repository(name)


# --- blobs -----------------------------------------------------------------------------------------

BIG = bytes(range(256)) * 4096 * 3


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads in pieces of 1 MiB: BIG is three."""
    monkeypatch.setattr(upload_module, "AT_ONCE", 1000)
    monkeypatch.setattr(upload_module, "PIECE", 1 << 20)


def test_a_small_blob_takes_three_requests_and_one_that_is_there_one(
    registry: FakeRegistry, app: RegistryRepository, mirror: RegistryMirror
) -> None:
    assert app.put_blob(EMPTY, b"{}") is Arrival.UPLOADED
    assert [method for method, _, _ in registry.requests] == ["HEAD", "POST", "PUT"]
    assert app.put_blob(EMPTY, b"{}") is Arrival.PRESENT
    assert (mirror.traffic.count(), mirror.traffic.sent) == (4, 2)
    assert app.read_blob(EMPTY) == b"{}"


def test_a_large_file_goes_up_in_pieces(
    registry: FakeRegistry, app: RegistryRepository, pieces: None, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(BIG)
    assert app.put_blob(blob(BIG), tmp_path / "big") is Arrival.UPLOADED
    assert registry.count("PATCH") == 3
    assert registry.held(IMAGE).blobs[str(Digest.of(BIG))] == BIG


def cut_after(size: int, *, keep: int) -> Fault:
    """The connection breaks in the middle of a PATCH, of which the registry keeps a part."""

    def act(request: Request) -> None:
        data = request.read(size)
        upload = request.registry.uploads[request.path.rpartition("/")[2].partition("?")[0]]
        upload += data[:keep]
        request.cut()

    return Fault("PATCH", "", act)


def test_a_broken_upload_goes_on_with_what_has_arrived(
    registry: FakeRegistry, mirror: RegistryMirror, app: RegistryRepository, pieces: None
) -> None:
    registry.faults = [cut_after(700_000, keep=600_000), cut_after(5, keep=0), cut_after(900_000, keep=900_000)]
    assert app.put_blob(blob(BIG), BIG) is Arrival.UPLOADED
    assert registry.held(IMAGE).blobs[str(Digest.of(BIG))] == BIG
    assert registry.count("POST") == 1
    assert [one["content-range"].partition("-")[0] for method, _, one in registry.requests if method == "PATCH"] == [
        "0",
        "600000",
        "600000",
        "1500000",
        "2548576",
    ]


def test_a_piece_of_which_the_answer_was_lost_is_not_sent_again(
    registry: FakeRegistry, app: RegistryRepository, pieces: None
) -> None:
    registry.faults = [cut_after(1 << 20, keep=1 << 20)]
    app.put_blob(blob(BIG), BIG)
    assert registry.count("PATCH") == 3


def test_an_upload_that_the_registry_forgot_begins_anew(
    registry: FakeRegistry, app: RegistryRepository, pieces: None
) -> None:
    def forget(request: Request) -> None:
        registry.uploads.clear()
        request.cut()

    registry.faults = [Fault("PATCH", "", forget, 2)]
    assert app.put_blob(blob(BIG), BIG) is Arrival.UPLOADED
    assert registry.count("POST") == 3
    assert registry.held(IMAGE).blobs[str(Digest.of(BIG))] == BIG


def test_an_upload_that_never_gets_on_ends_with_an_error(
    registry: FakeRegistry, app: RegistryRepository, pieces: None
) -> None:
    registry.faults = [Fault("PATCH", "", lambda request: request.refuse(404, "BLOB_UPLOAD_UNKNOWN"), 99)]
    with pytest.raises(EnvironmentLacking, match="BLOB_UPLOAD_UNKNOWN") as caught:
        app.put_blob(blob(BIG), BIG)
    assert caught.value.code == "registry-refused"
    assert registry.count("POST") == upload_module.SESSIONS
    registry.faults = [cut_after(10, keep=0) for _ in range(99)]
    with pytest.raises(EnvironmentLacking) as caught:
        app.put_blob(blob(BIG), BIG)
    assert caught.value.code == "registry-unreachable"


def test_a_finished_upload_of_which_the_answer_was_lost_is_seen(
    registry: FakeRegistry, app: RegistryRepository
) -> None:
    def finish(request: Request) -> None:
        data = request.read()
        registry.held(IMAGE).blobs[str(Digest.of(data))] = data
        registry.uploads.clear()
        request.cut()

    registry.faults = [Fault("PUT", "/uploads/", finish)]
    assert app.put_blob(EMPTY, b"{}") is Arrival.UPLOADED
    assert registry.count("POST") == registry.count("PUT") == 1


def test_limits_between_the_pieces_are_waited_out(
    registry: FakeRegistry, app: RegistryRepository, pieces: None
) -> None:
    registry.faults = [
        Fault("PATCH", "", lambda request: request.refuse(429, "TOOMANYREQUESTS", Retry_After="0"), 5),
        Fault("PUT", "", lambda request: request.refuse(503, "", Retry_After="0"), 5),
    ]
    assert app.put_blob(blob(BIG), BIG) is Arrival.UPLOADED
    assert registry.held(IMAGE).blobs[str(Digest.of(BIG))] == BIG


def test_a_blob_is_mounted_without_a_byte_and_what_cannot_be_is_uploaded(
    registry: FakeRegistry, mirror: RegistryMirror, app: RegistryRepository
) -> None:
    mirror.repository("base").put_blob(blob(BIG), BIG)
    before = mirror.traffic
    assert app.put_blob(blob(BIG), BIG, elsewhere=["app", "nothing", "base"]) is Arrival.MOUNTED
    traffic = mirror.traffic - before
    assert traffic.sent == 0
    assert traffic.requests == (("DELETE", 204, 1), ("HEAD", 404, 1), ("POST", 201, 1), ("POST", 202, 1))
    assert registry.uploads == {"session-2": bytearray(BIG)}  # the first upload's: none is left open
    started = registry.count("POST")
    assert app.put_blob(EMPTY, b"{}", elsewhere=["a", "b", "c", "base", "d"]) is Arrival.UPLOADED
    assert registry.count("POST") - started == upload_module.MOUNTS


def test_an_upload_that_is_sent_to_another_host_takes_no_authorization_along(tmp_path: Path, pieces: None) -> None:
    entry = "Basic " + base64.b64encode(b"user:secret").decode()

    def guard(request: Request) -> bool:
        if request.headers.get("Authorization") != entry:
            request.refuse(401, "UNAUTHORIZED", WWW_Authenticate="Basic")
            return False
        return True

    with fake_registry() as registry, fake_registry() as storage:
        registry.guard = guard
        registry.upload_base = f"http://{storage.host}"
        storage.uploads, storage.repositories = registry.uploads, registry.repositories
        storage.upload_base = registry.upload_base
        auths = {registry.host: {"auth": entry.removeprefix("Basic ")}}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": auths}))
        environment = {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
        with open_registry(f"registry+http://{registry.host}", environment=environment, progress=QUIET) as mirror:
            assert mirror.repository("app").put_blob(blob(BIG), BIG) is Arrival.UPLOADED
        assert [method for method, _, _ in storage.requests] == ["PATCH", "PATCH", "PATCH", "PUT"]
        assert all("authorization" not in headers for _, _, headers in storage.requests)
        assert registry.held("app").blobs[str(Digest.of(BIG))] == BIG


def test_other_bytes_than_promised_are_not_uploaded(
    registry: FakeRegistry, app: RegistryRepository, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"[]")
    for content in (b"[]", tmp_path / "file", b"{} "):
        with pytest.raises(VerificationError) as caught:
            app.put_blob(EMPTY, content)
        assert caught.value.code == "blob-mismatch"
    assert registry.held(IMAGE).blobs == {}


def test_a_blob_comes_into_the_store_verified_and_from_where_it_broke_off(
    registry: FakeRegistry, mirror: RegistryMirror, app: RegistryRepository, tmp_path: Path
) -> None:
    store = Store.open(tmp_path / "store")

    def half(request: Request) -> None:
        request.answer(200, BIG[: 1 << 20], Content_Length=str(len(BIG)), ETag=f'"{Digest.of(BIG)}"')
        request.close_connection = True

    registry.held(IMAGE).blobs[str(Digest.of(BIG))] = BIG
    registry.faults = [Fault("GET", "/blobs/", half)]
    app.fetch_blob(blob(BIG), store)
    assert store.blob(Digest.of(BIG)).read_bytes() == BIG
    assert mirror.traffic.received == len(BIG)
    app.fetch_blob(blob(BIG), store)
    assert registry.count("GET") == 2


def test_a_swapped_blob_is_refused(registry: FakeRegistry, app: RegistryRepository, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    registry.held(IMAGE).blobs[str(EMPTY.digest)] = b"[]"
    with pytest.raises(VerificationError):
        app.read_blob(EMPTY)
    with pytest.raises(VerificationError):
        app.fetch_blob(EMPTY, store)
    assert not store.has(EMPTY.digest)
    with pytest.raises(VerificationError) as caught:
        app.read_blob(blob(b"x"))
    assert caught.value.code == "blob-missing"
    with pytest.raises(VerificationError) as caught:
        app.fetch_blob(blob(b"nothing"), store)
    assert caught.value.code == "blob-missing"


# --- manifests and tags ----------------------------------------------------------------------------


def test_an_altered_manifest_is_refused(registry: FakeRegistry, app: RegistryRepository) -> None:
    held = registry.held(IMAGE)
    one = put(held, manifest("one"), "1.0")
    assert app.manifest(one.digest) == app.manifest("1.0") == one
    held.manifests[str(one.digest)] = (one.media_type, one.data.replace(b"one", b"two"))
    for reference in (one.digest, "1.0"):
        with pytest.raises(VerificationError) as caught:
            app.manifest(reference)
        assert caught.value.code == "registry-digest"
    other = manifest("other")
    given = {"Content_Type": other.media_type, "Docker_Content_Digest": str(other.digest)}
    registry.faults = [Fault("GET", "/manifests/", partial(Request.answer, status=200, body=other.data, **given))]
    with pytest.raises(VerificationError, match="when it is asked for"):
        app.manifest(one.digest)
    held.manifests[str(one.digest)] = ("application/octet-stream", one.data)
    with pytest.raises(VerificationError) as caught:
        app.manifest(one.digest)
    assert caught.value.code == "manifest-type"


def test_a_head_without_a_digest_is_not_trusted(registry: FakeRegistry, app: RegistryRepository) -> None:
    one = put(registry.held(IMAGE), manifest("one"), "1.0")
    registry.faults = [Fault("HEAD", "/manifests/", lambda request: request.answer(200), 2)]
    assert app.resolve("1.0") == one.digest
    assert app.resolve("2.0") is None


def test_a_tag_is_moved_from_where_it_is_expected(registry: FakeRegistry, app: RegistryRepository) -> None:
    held = registry.held(IMAGE)
    one, two = put(held, manifest("one")), put(held, manifest("two"))
    app.point("latest", stand_in(one), None)
    app.point("latest", stand_in(two), one.digest)
    assert held.tags == {"latest": str(two.digest)}
    with pytest.raises(Overtaken) as caught:
        app.point("latest", stand_in(one), one.digest)
    assert caught.value.found == two.digest
    with pytest.raises(Overtaken):
        app.point("latest", stand_in(one), None)
    puts = registry.count("PUT")
    app.point("latest", stand_in(two), two.digest)
    assert registry.count("PUT") == puts
    with pytest.raises(ValueError, match="auxiliary"):
        app.point(fallback_tag(one.digest), stand_in(one), None)
    with pytest.raises(ValueError, match="auxiliary"):
        app.put_auxiliary("latest", one, two.digest)
    app.put_auxiliary("move.latest.1.a", one, None)
    with pytest.raises(UsageError):
        app.resolve("../manifests/x")


def test_the_loser_of_a_race_for_a_tag_is_told(registry: FakeRegistry, app: RegistryRepository) -> None:
    held = registry.held(IMAGE)
    one, two = put(held, manifest("one")), put(held, manifest("two"))

    def overtaken(request: Request) -> None:
        registry.serve(request)
        held.tags["latest"] = str(two.digest)

    registry.faults = [Fault("PUT", "/manifests/latest", overtaken)]
    with pytest.raises(Overtaken) as caught:
        app.point("latest", stand_in(one), None)
    assert (caught.value.tag, caught.value.found) == ("latest", two.digest)


def test_lists_come_in_pages_that_end() -> None:
    with fake_registry(page=3) as registry, open_mirror(registry) as mirror:
        for number in range(10):
            put(registry.held(IMAGE), manifest("one"), f"1.{number}")
            registry.held(f"ns/more-{number}")
        registry.held("nsx/other")
        assert mirror.repository("app").tags() == tuple(f"1.{number}" for number in range(10))
        assert mirror.repositories() == ("app", *(f"more-{number}" for number in range(10)))
        assert mirror.repository("unknown").tags() == ()
        for link in ("</v2/ns/app/tags/list?n=1000>", "<http://127.0.0.1:9/v2/x>"):
            next_page = partial(Request.answer, status=200, body=b'{"tags": ["a"]}', Link=f'{link}; rel="next"')
            registry.faults = [Fault("GET", "/tags/", next_page)]
            with pytest.raises(VerificationError) as caught:
                mirror.repository("app").tags()
            assert caught.value.code == "registry-pages"


def test_a_registry_that_lists_no_repositories_has_none_to_show(registry: FakeRegistry, mirror: RegistryMirror) -> None:
    registry.faults = [Fault("GET", "_catalog", lambda request: request.refuse(403, "DENIED"))]
    assert mirror.repositories() == ()


def test_a_refusal_repeats_the_registrys_words_on_one_line(registry: FakeRegistry, app: RegistryRepository) -> None:
    words = json.dumps({"errors": [{"code": "DENIED", "message": "no\n\x1b[31m" + "x" * 5000}]}).encode()
    for status, code in ((403, "registry-denied"), (418, "registry-refused")):
        registry.faults = [Fault("PUT", "", lambda request: (request.read(), request.answer(status, words)))]  # noqa: B023
        with pytest.raises(EnvironmentLacking, match="DENIED no") as caught:
            app.put_manifest(manifest("one"))
        assert caught.value.code == code
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 1000


# --- referrers -------------------------------------------------------------------------------------


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


@pytest.fixture
def old() -> Iterator[FakeRegistry]:
    """A registry without the referrers API, that deletes no tags."""
    with fake_registry(referrers=False, tag_deletion=False) as running:
        yield running


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
        put(old.held(IMAGE), merge(None, add=[referrer_of(his)]), tag)

    old.faults = [Fault("PUT", tag, overwritten)]
    with open_mirror(old) as mirror:
        assert mirror.repository("app").attach(ours)
        found = mirror.repository("app").referrers(subject.digest)
    assert {one.descriptor.digest for one in found} == {ours.digest, his.digest}


def test_a_list_that_others_never_leave_alone_is_given_up(old: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "ATTEMPTS", 5)
    monkeypatch.setattr(listing_module, "SHORTEST_PAUSE", 0.001)
    subject = manifest("subject")
    tag = fallback_tag(subject.digest)

    def overwritten(request: Request) -> None:
        old.serve(request)
        put(old.held(IMAGE), merge(None), tag)

    old.faults = [Fault("PUT", tag, overwritten, 99)]
    with open_mirror(old) as mirror, pytest.raises(EnvironmentLacking) as caught:
        mirror.repository("app").attach(manifest("ours", subject))
    assert caught.value.code == "referrers-contended"


def test_what_others_wrote_into_the_index_is_carried_as_it_is() -> None:
    theirs = {"mediaType": "a/b", "digest": f"sha256:{'f' * 64}", "size": 1, "platform": {"os": "x"}, "future": [1]}
    index = Manifest(media_types.INDEX, json.dumps({"schemaVersion": 2, "manifests": [theirs], "new": True}).encode())
    note = manifest("note", manifest("subject"))
    merged = merge(index, add=[referrer_of(note)])
    document = json.loads(merged.data)
    assert theirs in document["manifests"]
    assert document["new"] is True
    assert merge(merged, add=[referrer_of(note)]) == merged
    assert [one.artifact_type for one in listed_referrers(merge(merged, drop=[Digest("f" * 64)]))] == ["test/note"]


def test_an_image_is_listed_with_its_configs_type() -> None:
    document = json.loads(manifest("x", manifest("subject")).data)
    del document["artifactType"]
    assert referrer_of(Manifest(media_types.MANIFEST, canonical_json(document))).artifact_type == EMPTY.media_type


# --- removing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag_deletion", [True, False])
def test_a_tag_goes_and_the_manifest_and_its_other_tags_stay(tag_deletion: bool) -> None:
    with fake_registry(tag_deletion=tag_deletion) as registry, open_mirror(registry) as mirror:
        held = registry.held(IMAGE)
        one = put(held, manifest("one"), "1.0", "latest")
        mirror.repository("app").remove_tag("1.0", one.digest)
        assert held.tags == {"latest": str(one.digest)}
        assert set(held.manifests) == {str(one.digest)}
        with pytest.raises(Overtaken):
            mirror.repository("app").remove_tag("latest", manifest("other").digest)


def test_a_tag_that_moves_while_it_is_removed_stays(old: FakeRegistry) -> None:
    held = old.held(IMAGE)
    one, two = put(held, manifest("one"), "1.0"), put(held, manifest("two"))

    def moved(request: Request) -> None:
        old.serve(request)
        held.tags["1.0"] = str(two.digest)

    old.faults = [Fault("PUT", r"/manifests/1\.0", moved)]
    with open_mirror(old) as mirror, pytest.raises(Overtaken) as caught:
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
