"""How a registry is named, and its manifests, tags and lists."""

from __future__ import annotations

import json
from functools import partial

import pytest

from pipeline.errors import EnvironmentLacking, PublicationRefused, UsageError, VerificationError
from pipeline.mirror.backends.registry import name_pages
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.backends.registry.removal import REMOVAL_RESPONSE_LIMIT
from pipeline.mirror.backends.registry.repository_requests import RepositoryRequests
from pipeline.mirror.protocol import TagConflict
from pipeline.mirror.references import fallback_tag
from pipeline.progress import QUIET
from tests.support.registry_contents import (
    IMAGE,
    manifest,
    open_mirror,
    put,
)
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry
from tests.support.tested_images import stand_in

# --- addresses


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


# --- manifests and tags


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
    with pytest.raises(VerificationError, match="instead of"):
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
    with pytest.raises(TagConflict) as caught:
        app.point("latest", stand_in(one), one.digest)
    assert caught.value.found == two.digest
    with pytest.raises(TagConflict):
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


def test_the_loser_of_a_race_for_a_tag_finds_it_when_the_others_have_written(
    registry: FakeRegistry, app: RegistryRepository
) -> None:
    held = registry.held(IMAGE)
    one, two = put(held, manifest("one")), put(held, manifest("two"))

    def overtaken(request: Request) -> None:
        registry.serve(request)
        held.tags["latest"] = str(two.digest)

    registry.faults = [Fault("PUT", "/manifests/latest", overtaken)]
    app.point("latest", stand_in(one), None)
    assert app.await_writers() and app.resolve("latest") == two.digest


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH"])
def test_requests_that_any_part_may_send_change_no_tag(
    registry: FakeRegistry, mirror: RegistryMirror, method: str
) -> None:
    requests = RepositoryRequests(mirror._client, mirror._address, "app")
    with pytest.raises(KeyError):
        requests.ask(method, "manifests/latest")
    assert registry.requests == []


def test_a_deletion_that_is_answered_at_length_is_refused(registry: FakeRegistry, app: RegistryRepository) -> None:
    one = put(registry.held(IMAGE), manifest("one"))
    registry.faults = [
        Fault("DELETE", "/manifests/", lambda request: request.answer(202, b"x" * (REMOVAL_RESPONSE_LIMIT + 1)))
    ]
    with pytest.raises(VerificationError) as caught:
        app.remove_manifest(one.digest)
    assert caught.value.code == "answer-too-large"


def test_an_answer_without_a_digest_proves_no_manifest(registry: FakeRegistry, app: RegistryRepository) -> None:
    def loses(request: Request) -> None:
        request.read()
        request.answer(201)

    registry.faults = [Fault("PUT", "/manifests/", loses)]
    with pytest.raises(VerificationError) as caught:
        app.put_manifest(manifest("one"), new=True)
    assert caught.value.code == "manifest-not-kept"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (412, "PRECONDITION", "Failed to process request due to 'latest' configured as immutable."),
        (400, "TAG_INVALID", "The image tag 'latest' already exists and cannot be overwritten"),
        (403, "DENIED", "tag is immutable"),
    ],
)
def test_a_registry_that_never_moves_tags_is_not_taken_for_a_lack_of_a_login(
    registry: FakeRegistry, app: RegistryRepository, status: int, code: str, message: str
) -> None:
    one = put(registry.held(IMAGE), manifest(1))

    def refuse(request: Request) -> None:
        request.read()
        request.answer(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode())

    registry.faults = [Fault("PUT", "manifests/latest", refuse, 9)]
    with pytest.raises(PublicationRefused, match="never moves tag 'latest'") as caught:
        app.point("latest", stand_in(one), None)
    assert caught.value.code == "registry-tag-immutable"
    assert "podman login" not in str(caught.value)


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


def test_a_list_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_pages, "NAMES_MOST", 10)
    with fake_registry(page=3) as registry, open_mirror(registry) as mirror:
        for number in range(8):
            put(registry.held(IMAGE), manifest("one"), f"1.{number}")
        assert len(mirror.repository("app").tags()) == 8
        for number in range(8, 16):
            put(registry.held(IMAGE), manifest("one"), f"1.{number}")
        with pytest.raises(VerificationError, match="the list has more than 10 names") as caught:
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
