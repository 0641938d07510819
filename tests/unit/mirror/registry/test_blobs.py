"""Blobs to and from a registry: resumed, mounted, verified."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry import blob_upload as upload_module
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.known_blobs import (
    NO_STAMP,
    SCRUB_KNOWN_SECONDS,
    HashedBy,
    KnownInRun,
)
from pipeline.mirror.protocol import Arrival
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.registry_contents import EMPTY, IMAGE, blob, open_mirror
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry

BIG = bytes(range(256)) * 4096 * 3


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads in pieces of 1 MiB: BIG is three."""
    monkeypatch.setattr(upload_module, "SINGLE_UPLOAD_LIMIT", 1000)
    monkeypatch.setattr(upload_module, "UPLOAD_CHUNK", 1 << 20)


def test_a_small_blob_takes_three_requests_and_one_that_was_put_none(
    registry: FakeRegistry, app: RegistryRepository
) -> None:
    assert app.put_blob(EMPTY, b"{}") is Arrival.UPLOADED
    assert app.put_blob(EMPTY, b"{}") is Arrival.PRESENT
    assert [method for method, _, _ in registry.requests] == ["HEAD", "POST", "PUT"]
    with open_mirror(registry) as later:
        assert later.repository("app").put_blob(EMPTY, b"{}") is Arrival.PRESENT
    assert [method for method, _, _ in registry.requests[3:]] == ["HEAD"]
    assert app.read_blob(EMPTY) == b"{}"


def test_a_blob_that_is_known_to_be_new_is_not_asked_for(registry: FakeRegistry, app: RegistryRepository) -> None:
    assert app.put_blob(EMPTY, b"{}", new=True) is Arrival.UPLOADED
    assert [method for method, _, _ in registry.requests] == ["POST", "PUT"]


def test_small_blobs_come_with_the_post_alone_where_the_registry_takes_it(
    registry: FakeRegistry, app: RegistryRepository
) -> None:
    registry.takes_posts = True
    for data in (b"one", b"two"):
        assert app.put_blob(blob(data), data, new=True) is Arrival.UPLOADED
    assert [method for method, _, _ in registry.requests] == ["POST", "POST"]
    assert registry.held(IMAGE).blobs == {str(Digest.of(data)): data for data in (b"one", b"two")}
    large = bytes(upload_module.BARE_UPLOAD_LIMIT + 1)
    app.put_blob(blob(large), large, new=True)
    assert [method for method, _, _ in registry.requests[2:]] == ["POST", "PUT"]


@pytest.mark.parametrize("status", [202, 400, 404, 405])
def test_a_registry_that_takes_no_blob_with_the_post_is_sent_none_again(
    status: int, registry: FakeRegistry, app: RegistryRepository
) -> None:
    def refuse(request: Request) -> None:
        request.read()
        request.answer(status)

    registry.faults = [Fault("POST", "digest=", refuse)]
    for data in (b"one", b"two"):
        assert app.put_blob(blob(data), data, new=True) is Arrival.UPLOADED
    assert registry.count("POST", "digest=") == 1 and registry.count("PUT") == 2


def test_an_answer_without_a_digest_proves_nothing(registry: FakeRegistry, app: RegistryRepository) -> None:
    def keeps(request: Request) -> None:
        data = request.read()
        registry.held(IMAGE).blobs[str(Digest.of(data))] = data
        request.answer(201)

    def loses(request: Request) -> None:
        request.read()
        request.answer(201)

    registry.faults = [Fault("PUT", "/blobs/uploads/", keeps)]
    assert app.put_blob(blob(b"one"), b"one", new=True) is Arrival.UPLOADED
    assert registry.count("HEAD") == 1
    registry.faults = [Fault("PUT", "/blobs/uploads/", loses)]
    with pytest.raises(VerificationError) as caught:
        app.put_blob(blob(b"two"), b"two", new=True)
    assert caught.value.code == "mirror-rotten"


def test_what_the_registry_says_that_it_has_counts_unless_it_is_to_be_read(
    registry: FakeRegistry, app: RegistryRepository, reading: RegistryMirror
) -> None:
    app.put_blob(EMPTY, b"{}")
    rot(registry, b"{}")
    with open_mirror(registry) as later:
        assert later.repository("app").holds_whole(EMPTY)
    assert not reading.repository("app").holds_whole(EMPTY)


def rot(registry: FakeRegistry, data: bytes, name: str = IMAGE) -> None:
    """One bit of a blob that the registry holds."""
    blobs = registry.held(name).blobs
    blobs[str(Digest.of(data))] = bytes([data[0] ^ 1]) + data[1:]


def drops(request: Request) -> None:
    """Answer an upload as if it were kept."""
    request.read()
    request.answer(201, Location="/v2/x", Docker_Content_Digest=str(EMPTY.digest))


def test_a_rotten_blob_is_sent_again_before_anything_rests_on_it(
    registry: FakeRegistry, reading: RegistryMirror
) -> None:
    app = reading.repository("app")
    app.put_blob(EMPTY, b"{}")
    rot(registry, b"{}")
    assert app.put_blob(EMPTY, b"{}") is Arrival.UPLOADED
    assert registry.held(IMAGE).blobs[str(EMPTY.digest)] == b"{}"
    assert not registry.faults


def test_a_registry_that_keeps_the_rotten_bytes_is_refused(registry: FakeRegistry, reading: RegistryMirror) -> None:
    """docker-registry takes what it has under a digest for whole, and drops what is sent again."""
    app = reading.repository("app")
    app.put_blob(EMPTY, b"{}")
    rot(registry, b"{}")
    registry.faults = [Fault("PUT", "/blobs/uploads/", drops)]
    with pytest.raises(VerificationError) as caught:
        app.put_blob(EMPTY, b"{}")
    assert caught.value.code == "mirror-rotten"
    assert "storage" in str(caught.value)


def test_what_a_scrub_found_whole_is_not_read_again(registry: FakeRegistry, tmp_path: Path) -> None:
    store, now = Store.open(tmp_path / "store"), [1_800_000_000.0]

    def known() -> KnownInRun:
        return KnownInRun("registry+http://host/team", store, lambda: now[0])

    known().note(EMPTY.digest, NO_STAMP, HashedBy.PUBLISHER)
    assert not known().believes(EMPTY.digest, NO_STAMP)
    known().note_scrub(EMPTY.digest, "run")
    assert known().read_in(EMPTY.digest, "run")
    assert not known().read_in(EMPTY.digest, "another")
    assert known().believes(EMPTY.digest, NO_STAMP)
    for later in (SCRUB_KNOWN_SECONDS + 1, -1.0):
        now[0] = 1_800_000_000.0 + later
        assert not known().believes(EMPTY.digest, NO_STAMP)


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
    assert registry.count("POST") == upload_module.UPLOAD_SESSIONS
    registry.faults = [cut_after(10, keep=0) for _ in range(99)]
    with pytest.raises(EnvironmentLacking) as caught:
        app.put_blob(blob(BIG), BIG)
    assert caught.value.code == "registry-unreachable"


def test_a_registry_that_wants_a_client_certificate_for_a_blob_is_a_registrys_error(
    registry: FakeRegistry, app: RegistryRepository, store: Store
) -> None:
    app.put_blob(blob(BIG), BIG)
    page = b"<title>400 No required SSL certificate was sent</title>"
    registry.faults = [Fault("GET", "", lambda request: request.answer(400, page), 99)]
    with pytest.raises(EnvironmentLacking, match="No required SSL certificate was sent") as caught:
        app.fetch_blob(blob(BIG), store)
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
    assert traffic.requests == (
        ("DELETE", 204, 1),
        ("HEAD", 404, 1),
        ("POST", 201, 1),
        ("POST", 202, 1),
    )
    assert registry.uploads == {"session-1": bytearray(BIG)}  # the first upload's: none is left open
    started = registry.count("POST")
    assert app.put_blob(EMPTY, b"{}", elsewhere=["a", "b", "c", "base", "d"]) is Arrival.UPLOADED
    assert registry.count("POST") - started == upload_module.MOUNT_ATTEMPTS


def test_a_mount_of_which_the_answer_names_no_digest_is_asked_for(
    registry: FakeRegistry, mirror: RegistryMirror, app: RegistryRepository
) -> None:
    def pretends(request: Request) -> None:
        request.answer(201)

    mirror.repository("base").put_blob(EMPTY, b"{}")
    registry.faults = [Fault("POST", "mount=", pretends)]
    assert app.put_blob(EMPTY, b"{}", elsewhere=["base"]) is Arrival.UPLOADED
    assert registry.held(IMAGE).blobs[str(EMPTY.digest)] == b"{}"


def test_a_blob_that_is_mounted_rotten_is_sent(registry: FakeRegistry, reading: RegistryMirror) -> None:
    mirror = reading
    mirror.repository("base").put_blob(EMPTY, b"{}")
    rot(registry, b"{}", "ns/base")
    assert mirror.repository("app").put_blob(EMPTY, b"{}", elsewhere=["base"]) is Arrival.UPLOADED
    assert registry.held(IMAGE).blobs[str(EMPTY.digest)] == b"{}"


def test_a_blob_that_is_mounted_rotten_and_stays_so_is_refused(registry: FakeRegistry, reading: RegistryMirror) -> None:
    mirror = reading
    mirror.repository("base").put_blob(EMPTY, b"{}")
    rot(registry, b"{}", "ns/base")
    registry.faults = [Fault("PUT", "/blobs/uploads/", drops)]
    with pytest.raises(VerificationError) as caught:
        mirror.repository("app").put_blob(EMPTY, b"{}", elsewhere=["base"])
    assert caught.value.code == "mirror-rotten"


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
