"""A registry lists tags whose manifest is lost, or cannot be read: a scrub tells and heals it; nothing is pruned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror import remote_scrub
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror
from pipeline.mirror.image_tags import immutable_tag
from pipeline.mirror.repair_sources import STORE_SOURCE, RepairSources
from pipeline.model.image import Image
from pipeline.model.rules import MirrorRules
from pipeline.model.scrub import DamageKind, RepairOutcome, ScrubbedObject, ScrubResult
from pipeline.oci import signature_tag
from pipeline.progress import QUIET
from pipeline.release import verify_reference
from pipeline.store import Store
from tests.support.prunable_mirror import LATER
from tests.support.published_images import ImagePublisher, key
from tests.support.registry_contents import open_mirror
from tests.support.registry_fake import FakeRegistry, Fault, Held, Request, fake_registry

FLOATING = ("1.0", "latest")


@pytest.fixture
def maker(tmp_path: Path) -> ImagePublisher:
    return ImagePublisher.at(tmp_path)


@pytest.fixture
def image(maker: ImagePublisher) -> Image:
    return maker.image("1.0")


@pytest.fixture(params=[True, False], ids=["referrers", "fallback tags"])
def registry(request: pytest.FixtureRequest, maker: ImagePublisher, image: Image) -> Iterator[FakeRegistry]:
    """To which an image was published."""
    with fake_registry(referrers=request.param) as running:
        with open_mirror(running) as mirror:
            maker.publish(mirror.repository("small"), image, tags=FLOATING)
        yield running


@pytest.fixture
def held(registry: FakeRegistry) -> Held:
    return registry.held("ns/small")


@pytest.fixture
def mirror(registry: FakeRegistry) -> Iterator[RegistryMirror]:
    with open_mirror(registry) as opened:
        yield opened


@pytest.fixture
def tags(image: Image) -> tuple[str, ...]:
    return tuple(sorted((*FLOATING, immutable_tag("1.0", image.config.created, image.digest))))


def scrub(mirror: RegistryMirror, store: Store) -> ScrubResult:
    return mirror.scrub(RepairSources(store), rate=0, progress=QUIET)


def told(done: ScrubResult) -> list[tuple[ScrubbedObject, DamageKind, str, RepairOutcome]]:
    return [(one.thing, one.wrong, one.name, one.fate) for one in done.findings]


def about_all(
    wrong: DamageKind, fate: RepairOutcome, image: Image, tags: Sequence[str]
) -> list[tuple[ScrubbedObject, DamageKind, str, RepairOutcome]]:
    manifest = (ScrubbedObject.MANIFEST, wrong, str(image.digest), fate)
    return [manifest, *((ScrubbedObject.TAG, wrong, tag, fate) for tag in tags)]


class Failing(Fault):
    """The registry cannot read the file of a manifest, and drops what is sent in its place."""

    def fits(self, method: str, path: str) -> bool:
        return method in {"GET", "HEAD"} and super().fits(self.method, path)


def failing(image: Image, tags: Sequence[str]) -> Failing:
    names = "|".join(("small/manifests/" + name).replace(".", "[.]") for name in (*tags, str(image.digest)))
    return Failing("", f"({names})$", lambda request: request.answer(500), times=10_000)


def test_a_lost_manifest_is_told_with_its_tags_and_nothing_is_pruned(
    mirror: RegistryMirror, held: Held, image: Image, tags: tuple[str, ...], maker: ImagePublisher
) -> None:
    lost = held.manifests.pop(str(image.digest))
    before = (dict(held.manifests), dict(held.tags))
    done = scrub(mirror, maker.store)
    assert told(done) == about_all(DamageKind.MISSING, RepairOutcome.LOST, image, tags)
    for dry_run in (True, False):
        with pytest.raises(VerificationError, match="nothing is pruned") as caught:
            mirror.prune(MirrorRules(), LATER, dry_run=dry_run, idle=True)
        assert caught.value.code == "tag-damaged"
        assert f"`relbuild scrub {mirror.url}` first" in (caught.value.problems[0].hint or "")
    assert (held.manifests, held.tags) == before
    held.manifests[str(image.digest)] = lost
    assert mirror.prune(MirrorRules(), LATER, idle=True).plan.empty
    verify_reference(parse_address(f"{mirror.url}/small:latest"), key().public, maker.build_env)


@pytest.mark.parametrize("left", ["floating", "immutable"])
def test_a_lost_manifest_is_sent_again_from_the_store(
    left: str, mirror: RegistryMirror, held: Held, image: Image, tags: tuple[str, ...], maker: ImagePublisher
) -> None:
    """Its digest is that of the signed move, or the one in the names of the immutable tag and the signature's."""
    maker.store.put(image.manifest_bytes)
    for tag in tags:
        if (tag in FLOATING) != (left == "floating"):
            del held.tags[tag]
    del held.manifests[str(image.digest)]
    done = scrub(mirror, maker.store)
    assert told(done) == [(ScrubbedObject.MANIFEST, DamageKind.MISSING, str(image.digest), RepairOutcome.HEALED)]
    assert done.findings[0].source == STORE_SOURCE and not done.lost
    assert held.manifests[str(image.digest)][1] == image.manifest_bytes
    assert not scrub(mirror, maker.store).findings
    assert mirror.prune(MirrorRules(), LATER, idle=True).plan.empty


def test_a_tag_of_which_nothing_is_known_is_told(mirror: RegistryMirror, held: Held, maker: ImagePublisher) -> None:
    held.tags["by-hand"] = f"sha256:{'7' * 64}"
    held.tags["0.1-20261101-777777777777"] = f"sha256:{'7' * 64}"
    assert told(scrub(mirror, maker.store)) == [
        (ScrubbedObject.TAG, DamageKind.MISSING, tag, RepairOutcome.LOST)
        for tag in ("0.1-20261101-777777777777", "by-hand")
    ]


def test_a_tag_without_signed_moves_leads_to_what_was_healed_by_another(
    mirror: RegistryMirror, held: Held, image: Image, maker: ImagePublisher
) -> None:
    maker.store.put(image.manifest_bytes)
    held.tags["by-hand"] = str(image.digest)
    del held.manifests[str(image.digest)]
    assert [one.name for one in scrub(mirror, maker.store).findings] == [str(image.digest)]


def test_a_lost_signature_is_told(mirror: RegistryMirror, held: Held, image: Image, maker: ImagePublisher) -> None:
    tag = signature_tag(image.digest)
    del held.manifests[held.tags[tag]]
    assert told(scrub(mirror, maker.store)) == [(ScrubbedObject.TAG, DamageKind.MISSING, tag, RepairOutcome.LOST)]
    with pytest.raises(VerificationError, match="tag-damaged"):
        mirror.prune(MirrorRules(), LATER)


@pytest.mark.parametrize("removed", ["1.0", "latest"])
def test_a_tag_that_is_removed_meanwhile_is_no_damage(
    removed: str, mirror: RegistryMirror, registry: FakeRegistry, held: Held, maker: ImagePublisher
) -> None:
    def gone(request: Request) -> None:
        held.tags.pop(removed, None)
        request.refuse(404, "MANIFEST_UNKNOWN")

    digest = held.tags[removed]
    for act in (
        lambda: scrub(mirror, maker.store).findings,
        lambda: mirror.prune(MirrorRules(), LATER, dry_run=True).plan.tags,
    ):
        held.tags[removed] = digest
        registry.faults = [Fault(method, f"manifests/{removed}$", gone) for method in ("GET", "HEAD")]
        assert not act() and removed not in held.tags


def test_a_list_of_referrers_and_a_record_that_are_lost_keep_nobody_from_pruning(
    mirror: RegistryMirror, held: Held
) -> None:
    missing = f"sha256:{'7' * 64}"
    held.tags |= {f"prune.{'7' * 32}": missing, f"sha256-{'7' * 64}": missing}
    assert mirror.prune(MirrorRules(), LATER, idle=True).plan.empty


def test_a_manifest_to_which_the_registry_answers_with_an_error_is_a_finding(
    mirror: RegistryMirror, registry: FakeRegistry, image: Image, tags: tuple[str, ...], maker: ImagePublisher
) -> None:
    """And not the end of the scrub: another repository, which comes later, is read."""
    maker.publish(mirror.repository("zoo"), maker.image("1.1", "zoo"))
    other = registry.held("ns/zoo")
    del other.blobs[str(maker.image("1.1", "zoo").config_descriptor.digest)]
    registry.faults = [failing(image, tags)]
    config = str(maker.image("1.1", "zoo").config_descriptor.digest)
    rest = (ScrubbedObject.BLOB, DamageKind.MISSING, config, RepairOutcome.LOST)
    assert told(scrub(mirror, maker.store)) == [*about_all(DamageKind.ROTTEN, RepairOutcome.LOST, image, tags), rest]
    maker.store.put(image.manifest_bytes)
    done = scrub(mirror, maker.store)
    assert told(done) == [*about_all(DamageKind.ROTTEN, RepairOutcome.KEPT, image, tags), rest]
    assert len(done.kept) == 1 + len(tags)


def test_a_registry_that_replaces_what_it_could_not_read_is_healed(
    mirror: RegistryMirror, registry: FakeRegistry, image: Image, tags: tuple[str, ...], maker: ImagePublisher
) -> None:
    fault = failing(image, tags)

    def taken(request: Request) -> None:
        registry.faults.remove(fault)
        registry.serve(request)

    maker.store.put(image.manifest_bytes)
    registry.faults = [fault, Fault("PUT", f"manifests/{image.digest}", taken)]
    assert told(scrub(mirror, maker.store)) == [
        (ScrubbedObject.MANIFEST, DamageKind.ROTTEN, str(image.digest), RepairOutcome.HEALED)
    ]


def test_a_registry_that_answers_with_nothing_but_errors_ends_the_scrub(
    mirror: RegistryMirror, registry: FakeRegistry, maker: ImagePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_scrub, "FAILURES_MOST", 2)
    registry.faults = [Failing("", "manifests/", lambda request: request.answer(503), times=10_000)]
    with pytest.raises(EnvironmentLacking) as caught:
        scrub(mirror, maker.store)
    assert caught.value.code == "registry-failing"
    tags = [path for method, path, _ in registry.requests if method == "HEAD" and path.endswith(("latest", ".sig"))]
    assert len(set(tags)) <= 2


def test_a_registry_that_refuses_to_give_a_manifest_ends_the_scrub(
    mirror: RegistryMirror, registry: FakeRegistry, image: Image, tags: tuple[str, ...], maker: ImagePublisher
) -> None:
    registry.faults = [failing(image, tags)]
    registry.faults[0].act = lambda request: request.answer(403)
    with pytest.raises(EnvironmentLacking) as caught:
        scrub(mirror, maker.store)
    assert caught.value.code == "registry-denied"
