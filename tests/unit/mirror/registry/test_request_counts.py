"""Requests of a publication to a registry, by kind: none is sent whose answer is known in the same operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.protocol import Repository
from pipeline.mirror.tag_signing import SignedTag
from pipeline.mirror.tag_statements import WrittenStatements, list_statements, recent_statements
from pipeline.model.manifests import Manifest
from pipeline.model.publication import RecordedStatement
from pipeline.model.rules import MirrorRules
from pipeline.oci import VerifyingKey, media_types
from pipeline.release.current_images import tag_signer
from pipeline.release.renew import renew
from pipeline.transfer.counters import TrafficMeter, registry_endpoint
from tests.support.published_images import ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import FakeRegistry, Fault, Request, fake_registry

TAGS = ("1.0.0", "1.0", "1", "latest")
TAG_COUNT = len(TAGS)
BLOBS = 3 + 1 + 2 + 5 + TAG_COUNT
"""Layers and config, the empty config, the signature's payload and config, five attestations, a statement for each tag:
two small layers here."""


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


def published(registry: FakeRegistry, maker: ImagePublisher, *, read_back: bool = False) -> Counter[str]:
    """What a process sends that publishes a version."""
    with open_mirror(registry, read_back=read_back) as there:
        maker.publish(there.repository("small"), maker.image("1.0"), tags=TAGS, read_back=read_back)
        return Counter(dict(there.traffic.kinds))


def test_a_fresh_image_where_the_registry_lists_referrers(maker: ImagePublisher) -> None:
    with fake_registry() as registry:
        sent = published(registry, maker)
    assert sent == {
        "HEAD blob": 4,  # two layers, the config, the empty config
        "POST upload": BLOBS,
        "PUT upload": BLOBS,
        "HEAD manifest": 1,
        "PUT manifest": 1 + 5 + 2 * TAG_COUNT,  # the image, attestations, of each tag its anchor and statement
        "GET signature": 1,
        "HEAD signature": 2,
        "PUT signature": 1,
        "GET referrers": 1 + 2 * TAG_COUNT,
        "HEAD tag": 1 + TAG_COUNT + 2 + 3 * TAG_COUNT,  # the gate's look, and those of moving
        "PUT tag": 1 + TAG_COUNT,
    }


def test_an_unchanged_image_sends_nothing_and_reads_no_byte_of_it(maker: ImagePublisher) -> None:
    with fake_registry() as registry:
        published(registry, maker)
        again = published(registry, maker)
    assert again == {
        "HEAD blob": 3 + 1 + 5,  # the image's, and the payloads of its signature and attestations
        # Statements, which were verified before, and attestations; tags name the image's.
        "HEAD manifest": TAG_COUNT + 5,
        "GET signature": 1,
        "GET referrers": 1 + TAG_COUNT,
        "HEAD tag": 1 + TAG_COUNT,
    }


def test_threads_find_out_once_that_a_registry_lists_no_referrers(maker: ImagePublisher) -> None:
    with fake_registry(referrers=False) as registry:
        published(registry, maker)
        again = published(registry, maker)
    assert (again["GET referrers"], again["GET referrers index"]) == (1, 1 + TAG_COUNT)


@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "fallback tag"])
def test_a_night_looks_for_moves_back_without_a_request_more(maker: ImagePublisher, api: bool) -> None:
    """Neither for tags that are new, nor for those to be moved, nor for those that stand."""

    def nights(leave_moved_back: bool) -> Iterator[Counter[str]]:
        with fake_registry(referrers=api) as registry:
            for version in ("1.0", "1.1", "1.1"):
                with open_mirror(registry, read_back=True) as there:
                    for name in ("one", "two"):
                        maker.publish(
                            there.repository(name),
                            maker.image(version, name),
                            tags=TAGS,
                            read_back=True,
                            leave_moved_back=leave_moved_back,
                        )
                    yield Counter(dict(there.traffic.kinds))

    fresh, changed, unchanged = nights(leave_moved_back=True)
    assert [fresh, changed, unchanged] == list(nights(leave_moved_back=False))
    assert (fresh["PUT tag"], changed["PUT tag"], unchanged["PUT tag"]) == (2 * (1 + TAG_COUNT),) * 2 + (0,)


def test_an_unchanged_publication_waits_for_no_writers(maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_registry(referrers=False) as registry:
        published(registry, maker)
        waits: list[object] = []
        monkeypatch.setattr("time.sleep", waits.append)
        monkeypatch.setattr(RegistryRepository, "await_writers", waits.append)
        published(registry, maker)
    assert waits == []


def test_what_is_read_back_is_not_believed_because_a_tag_names_it(maker: ImagePublisher) -> None:
    with fake_registry() as registry:
        published(registry, maker)
        again = published(registry, maker, read_back=True)
    assert again["HEAD manifest"] == 1 + 5 + TAG_COUNT and again["HEAD tag"] == 2 * (1 + TAG_COUNT)


def test_only_a_tag_of_which_the_image_is_signed_and_young_is_left_alone(maker: ImagePublisher) -> None:
    image = maker.image("1.0")

    def settled(repository: Repository) -> bool:
        return SignedTag(repository, repository.identity, "latest", signer).settled_until(image.digest) > 0

    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        signer = tag_signer(key(), MirrorRules(), maker.build_env)
        assert not settled(repository)
        maker.publish(repository, image)
        assert settled(repository)
        maker.clock.now += signer.validity / 2
        assert not settled(repository)  # it is to be renewed
        maker.publish(repository, image)
        assert settled(repository)
        maker.publish(repository, maker.image("1.1"))  # another publisher, since the gate looked
        assert not settled(repository)


def test_a_standing_tag_is_renewed_when_it_is_due(maker: ImagePublisher) -> None:
    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        for days in (0, 1, 6):
            maker.clock.now += days * 86_400
            maker.publish(repository, maker.image("1.0"))
        said = list_statements(repository, repository.identity, "latest")
        assert [one.statement.renews for one in said] == [True, False]


def test_a_renewal_reads_what_is_signed_of_a_tag_once_before_it_signs(maker: ImagePublisher) -> None:
    """Once to find what is due, and again just before it signs; the third list is of what is superseded."""
    with fake_registry() as registry:
        published(registry, maker)
        maker.clock.now += 5 * 86_400
        with open_mirror(registry) as there:
            done = renew(there.repository("small"), key(), MirrorRules(), maker.build_env, {})
            sent = Counter(dict(there.traffic.kinds))
    assert set(done.tags) == set(TAGS)
    assert sent == {
        "GET tags": 1,
        "HEAD tag": 1 + 2 * TAG_COUNT,  # the immutable one; before the statements are read, and before one is signed
        "GET referrers": 3 * TAG_COUNT,
        "HEAD manifest": 3 * TAG_COUNT,  # the statement, each time that it is read, and the anchor
        "HEAD blob": 1,
        "POST upload": TAG_COUNT,
        "PUT upload": TAG_COUNT,
        "PUT manifest": TAG_COUNT,
    }


def test_attestations_take_one_change_of_an_index_where_clients_keep_it(maker: ImagePublisher) -> None:
    with fake_registry(referrers=False) as registry:
        sent = published(registry, maker)
    assert sent["PUT referrers index"] == 1 + TAG_COUNT
    assert sent["GET referrers index"] == 1 + 2 + (2 + 2) * TAG_COUNT


def test_what_is_to_be_read_back_is_read_before_a_tag_points_to_it(maker: ImagePublisher) -> None:
    def flips(request: Request) -> None:
        """The registry's disk changes a bit of what it has acknowledged."""
        registry.serve(request)
        held = registry.held("ns/small").blobs
        digest = request.path.rpartition("digest=")[2].replace("%3A", ":")
        held[digest] = bytes([held[digest][0] ^ 1]) + held[digest][1:]

    with fake_registry() as registry, open_mirror(registry, read_back=True) as there:
        registry.faults = [Fault("PUT", "/blobs/uploads/", flips)]
        with pytest.raises(VerificationError) as caught:
            maker.publish(there.repository("small"), maker.image("1.0"), tags=TAGS, read_back=True)
        assert caught.value.code == "blob-damaged"
        assert not [tag for tag in registry.held("ns/small").tags if not tag.startswith("sha256-")]


def test_a_statement_is_verified_by_what_is_listed(maker: ImagePublisher) -> None:
    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        maker.publish(repository, maker.image("1.0"))
        (one,) = list_statements(repository, repository.identity, "latest")
        written = WrittenStatements()
        asked = len(registry.requests)

        def recent(trusted: VerifyingKey) -> tuple[RecordedStatement, ...]:
            return recent_statements(repository, repository.identity, "latest", trusted, listed=(one,))

        assert recent(key().public) == (one,)
        assert len(registry.requests) == asked
        assert recent(key(1).public) == ()
        assert written.on(repository, one)
        repository.remove_referrer(one.record)
        assert not written.on(repository, one)
        written.note(one)
        assert written.on(repository, one)


def test_a_signature_that_another_publisher_overwrote_is_put_beside_theirs(maker: ImagePublisher) -> None:
    other = Manifest(
        media_types.MANIFEST,
        b'{"config":{"digest":"sha256:%b","mediaType":"application/vnd.oci.image.config.v1+json","size":2},"layers":[],'
        b'"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}' % Digest.of(b"{}").hex.encode(),
    )

    def overtaken(request: Request) -> None:
        registry.serve(request)
        held = registry.held("ns/small")
        held.manifests[str(other.digest)] = (other.media_type, other.data)
        held.tags[request.path.rpartition("/")[2]] = str(other.digest)

    with fake_registry() as registry, open_mirror(registry) as there:
        repository = there.repository("small")
        image = maker.image("1.0")
        registry.faults = [Fault("PUT", r"/manifests/sha256-.*\.sig", overtaken)]
        maker.publish(repository, image, tags=TAGS)
        stands = repository.manifest(f"sha256-{image.digest.hex}.sig")
        assert stands is not None and stands.digest != other.digest


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v2/a/b/blobs/uploads/", "upload"),
        ("/v2/a/blobs/uploads/session", "upload"),
        ("/v2/a/blobs/sha256:0", "blob"),
        ("/v2/a/manifests/sha256:0", "manifest"),
        ("/v2/a/manifests/sha256-0", "referrers index"),
        ("/v2/a/manifests/sha256-0.sig", "signature"),
        ("/v2/a/manifests/1.0", "tag"),
        ("/v2/a/referrers/sha256:0", "referrers"),
        ("/v2/a/tags/list", "tags"),
        ("/v2/_catalog", "repositories"),
        ("/token", "other"),
    ],
)
def test_an_endpoint_is_named_by_its_path(path: str, endpoint: str) -> None:
    assert registry_endpoint(path) == endpoint


def test_kinds_are_counted_since_an_earlier_look() -> None:
    meter = TrafficMeter()
    meter.request("HEAD", 200, "blob")
    before = meter.read()
    meter.request("HEAD", 404, "blob")
    meter.request("PUT", 201, "tag")
    assert (meter.read() - before).kinds == (("HEAD blob", 1), ("PUT tag", 1))
