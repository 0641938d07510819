"""A registry, or a proxy in front of it, accepts a tag and drops it: who publishes, copies or promotes is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, PublicationRefused, RelbuildError
from pipeline.mirror import tag_moves
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.protocol import Repository
from pipeline.model.image import Image
from pipeline.oci import signature_tag
from pipeline.release import copy, promote, verify_reference
from tests.support.moved_tags import at
from tests.support.published_images import RULES, ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import FakeRegistry, Fault, Request, digest_of, fake_registry

TAGS = ("1.0", "latest")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_moves, "_LOOK_PAUSE", 0.0)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


@pytest.fixture
def repository(registry: FakeRegistry) -> Iterator[Repository]:
    with open_mirror(registry) as there:
        yield there.repository("small")


@pytest.fixture
def image(maker: ImagePublisher) -> Image:
    return maker.image("1.0")


def own_tag(image: Image) -> str:
    return immutable_tag("1.0", image.config.created, image.digest)


def drop(registry: FakeRegistry, *tags: str, instead: Digest | None = None) -> None:
    """Answer 201 to each move of these tags, and do not make it, or point them to another manifest."""

    def accepted(request: Request) -> None:
        data = request.read()
        if instead is not None:
            registry.held("ns/small").tags[request.path.rpartition("/")[2]] = str(instead)
        request.answer(201, Docker_Content_Digest=digest_of(data))

    registry.faults = [Fault("PUT", f"/small/manifests/{tag}$", accepted, times=1000) for tag in tags]


def failed(repository: Repository, maker: ImagePublisher, image: Image, *, read_back: bool = False) -> RelbuildError:
    with pytest.raises(RelbuildError) as caught:
        maker.publish(repository, image, tags=TAGS, read_back=read_back)
    return caught.value


def told(error: RelbuildError) -> list[tuple[str, str]]:
    return [(problem.code, problem.message.split("'")[1]) for problem in error.problems]


@pytest.mark.parametrize("read_back", [False, True])
def test_an_immutable_tag_that_is_dropped_is_told_and_stops_no_other(
    read_back: bool, registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    tag = own_tag(image)
    drop(registry, tag)
    for _ in range(2):  # also where all else is there
        error = failed(repository, maker, image, read_back=read_back)
        assert type(error) is EnvironmentLacking and told(error) == [("tag-not-kept", tag)]
        assert {name: repository.resolve(name) for name in TAGS} == dict.fromkeys(TAGS, image.digest)
    verify_reference(parse_address(f"{repository.url}:latest"), key().public, maker.build_env)
    registry.faults = []
    assert maker.publish(repository, image, tags=TAGS).immutable == tag
    assert repository.resolve(tag) == image.digest


def test_a_floating_tag_that_is_dropped_was_moved_by_nobody_else(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    drop(registry, "1[.]0")
    error = failed(repository, maker, image)
    assert type(error) is EnvironmentLacking and told(error) == [("tag-not-kept", "1.0")]
    assert repository.resolve("latest") == repository.resolve(own_tag(image)) == image.digest
    registry.faults = []
    maker.publish(repository, image, tags=TAGS)
    for tag in TAGS:
        verify_reference(parse_address(f"{repository.url}:{tag}"), key().public, maker.build_env)


def test_a_tag_that_is_not_there_for_a_moment_is_kept(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    """Another publisher sets it at the same time, on a registry that writes files in place."""
    hidden = Counter[str]()

    def guard(request: Request) -> bool:
        tag = request.path.rpartition("/")[2]
        if request.command != "HEAD" or tag not in registry.held("ns/small").tags or hidden[tag] == 2:
            return True
        hidden[tag] += 1
        request.answer(404)
        return False

    registry.guard = guard
    maker.publish(repository, image, tags=TAGS)
    assert {tag: hidden[tag] for tag in (*TAGS, own_tag(image))} == dict.fromkeys((*TAGS, own_tag(image)), 2)


def test_a_registry_that_keeps_no_tag_is_told_of_each(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    drop(registry, *TAGS, own_tag(image))
    error = failed(repository, maker, image)
    assert sorted(told(error)) == sorted(("tag-not-kept", tag) for tag in (*TAGS, own_tag(image)))


def test_a_signature_that_is_dropped_was_overwritten_by_nobody_else(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    tag = signature_tag(image.digest)
    drop(registry, tag)
    assert told(failed(repository, maker, image)) == [("tag-not-kept", tag)]
    assert not set(repository.tags()) & {*TAGS, own_tag(image)}


def test_an_immutable_tag_that_another_writer_overwrites_is_told_as_before(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    other = maker.image("0.9")
    maker.publish(repository, other, tags=("0.9",))
    drop(registry, own_tag(image), instead=other.digest)
    error = failed(repository, maker, image)
    assert type(error) is PublicationRefused and told(error) == [("tag-immutable", own_tag(image))]


def test_a_floating_tag_that_another_writer_overwrites_is_told_as_before(
    registry: FakeRegistry, repository: Repository, maker: ImagePublisher, image: Image
) -> None:
    other = maker.image("0.9")
    maker.publish(repository, other, tags=("0.9",))
    drop(registry, "latest", instead=other.digest)
    assert told(failed(repository, maker, image)) == [("tag-overtaken", "latest")]


def test_a_copy_and_a_promotion_whose_tags_are_dropped_are_told(
    mirror: Path, registry: FakeRegistry, repository: Repository, maker: ImagePublisher
) -> None:
    image = maker.image("1.1")
    tag = immutable_tag("1.1", image.config.created, image.digest)
    there = parse_address(repository.url)
    drop(registry, tag)
    with pytest.raises(EnvironmentLacking) as caught:
        copy(at(mirror), there, key(), RULES, maker.build_env)
    assert told(caught.value) == [("tag-not-kept", tag)]
    drop(registry, "stable")
    with pytest.raises(EnvironmentLacking) as caught:
        promote(parse_address(f"{repository.url}:latest"), "stable", key(), RULES, maker.build_env)
    assert told(caught.value) == [("tag-not-kept", "stable")]
