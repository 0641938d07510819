"""Cleaning up mirrors that are registries, neither of which has the referrers API."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.mirror.backends.layout.layout_mirror import open_layout
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.backends.registry.registry_prune import prune_registry
from pipeline.mirror.backends.registry.registry_repository import RegistryRepository
from pipeline.mirror.protocol import Repository, is_auxiliary
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules
from pipeline.model.scrub import RepairOutcome, ScrubResult
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.foreign_programs import (
    crane_registry,
    docker_registry,
    program,
)
from tests.support.old_records import write_down
from tests.support.prunable_mirror import (
    LATER,
    RULES,
    PrunableMirror,
    falsely_listed,
    require_whole,
    stocked,
    tagged,
)
from tests.support.sampling import first_step, stride

pytestmark = pytest.mark.long


@contextlib.contextmanager
def reached(host: str) -> Iterator[RegistryMirror]:
    with open_registry(f"registry+http://{host}/ns", environment={}, progress=QUIET) as mirror:
        yield mirror


def stored(folder: Path) -> dict[str, int]:
    """The blobs of a docker-registry, manifests among them: hex → bytes."""
    found = (folder / "data" / "docker" / "registry" / "v2" / "blobs").rglob("data")
    return {path.parent.name: path.stat().st_size for path in found}


def scrub(mirror: RegistryMirror, store: Store) -> ScrubResult:
    return mirror.scrub(RepairSources(store), rate=0, progress=QUIET)


def collect(folder: Path, *options: str) -> None:
    """docker-registry's own garbage collection, as the instructions say it."""
    argv = [program("docker-registry"), "garbage-collect", *options, folder / "config.yml"]
    subprocess.run(argv, check=True, capture_output=True)


def is_there(repository: Repository, digest: Digest) -> bool:
    return repository.manifest(digest) is not None


def test_from_a_registry_without_the_referrers_api_exactly_the_unreachable_goes(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "registry"
    with docker_registry(folder) as host, reached(host) as mirror:
        stock = stocked(mirror, store)
        product = mirror.repository("product")
        before = stored(folder)
        dry = prune_registry(mirror, RULES, LATER, dry_run=True)
        assert stored(folder) == before and product.resolve("old-1") is not None
        pruned = prune_registry(mirror, RULES, LATER)
        assert pruned.plan == dry.plan and not pruned.refused
        assert (pruned.size, pruned.size_after) == (dry.size, dry.size_after)
        assert {tag for tag in product.tags() if not is_auxiliary(tag)} == {"9.7", "stable"}
        assert mirror.repository("other/product").tags() == ()
        require_whole(product)
        assert stock.goes | stock.orphans <= {one.digest for one in (*dry.plan.manifests, *dry.plan.blobs)}
        assert not [one for one in dry.plan.manifests if is_there(mirror.repository(one.repository), one.digest)]
        assert prune_registry(mirror, RULES, LATER).plan.empty
        assert any("garbage-collect" in line for line in pruned.instructions)
    # Lists that were overwritten by attaching, and an index without a tag, cannot be found by the API: they stay.
    collect(folder)
    after = stored(folder)
    # And so do the bytes (but only those) of manifests that they list.
    assert {digest.hex for digest in stock.stays | stock.unlisted} <= after.keys()
    assert not {one.digest.hex for one in pruned.plan.blobs} & after.keys()
    assert 3000 < sum(size for name, size in before.items() if name not in after) <= pruned.size_after
    with docker_registry(folder) as host, reached(host) as mirror:
        require_whole(mirror.repository("product"))


def test_the_bytes_that_a_registry_will_free_are_those_that_its_collection_frees(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "registry"
    with docker_registry(folder) as host, reached(host) as mirror:
        product, other = mirror.repository("product"), mirror.repository("other")
        first, second, third = (mirror_images.image(store, number, 1000 * number) for number in range(3))
        for made in (first, second, third):
            mirror_images.attach(product, mirror_images.put(product, store, made).descriptor, f"SBOM of {made.digest}")
        tagged(product, "9.7", mirror_images.manifest(first))
        tagged(product, "old-1", mirror_images.manifest(second))
        tagged(product, "old-2", mirror_images.manifest(third))
        mirror_images.publish(other, store, third, "9.7")  # the same image stays elsewhere
        before = stored(folder)
        dry = prune_registry(mirror, RULES, LATER, dry_run=True)
        pruned = prune_registry(mirror, RULES, LATER)
        assert pruned.size_after == dry.size_after > 1000
    collect(folder)
    after = stored(folder)
    assert sum(size for name, size in before.items() if name not in after) == pruned.size_after
    assert not after.keys() - before.keys()


def blob_file(folder: Path, digest: Digest) -> Path:
    return folder / "data/docker/registry/v2/blobs/sha256" / digest.hex[:2] / digest.hex / "data"


@pytest.mark.parametrize("cut", [False, True], ids=["lost", "cut short"])
def test_tags_whose_manifest_is_lost_are_scrubbed_before_anything_is_pruned(
    cut: bool, tmp_path: Path, store: Store
) -> None:
    made = mirror_images.image(store, 1)
    whole = mirror_images.manifest(made)
    tags = ("9.7", f"9.7-20261101-{made.digest.short}")
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        mirror_images.put(product, store, made)
        for tag in tags:
            tagged(product, tag, whole)
        PrunableMirror(store).signature(product, made.digest, "signed", stays=True)
    file = blob_file(tmp_path, made.digest)
    data = file.read_bytes()
    file.write_bytes(data[:200])
    if not cut:
        file.unlink()
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        before = mirror.repository("product").tags()
        with pytest.raises(RelbuildError) as caught:
            prune_registry(mirror, RULES, LATER, idle=True)
        assert caught.value.code == ("registry-failing" if cut else "tag-damaged")
        assert {one.name for one in scrub(mirror, store).lost} == {*tags, str(made.digest)}
        store.put(whole.data)
        again = scrub(mirror, store)
        if cut:  # docker-registry drops what it has by name
            assert {one.name for one in again.kept} == {tags[1], str(made.digest)}
            assert {one.name for one in again.lost} == {*tags, str(made.digest)}
            file.unlink()
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        if cut:
            again = scrub(mirror, store)
        assert [(one.name, one.fate) for one in again.findings] == [(str(made.digest), RepairOutcome.HEALED)]
        assert not scrub(mirror, store).findings and file.read_bytes() == data
        assert prune_registry(mirror, RULES, LATER, idle=True).plan.empty
        assert mirror.repository("product").tags() == before


def test_why_the_instructions_warn_of_deleting_untagged_manifests(tmp_path: Path, store: Store) -> None:
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        made = mirror_images.image(store, 1)
        whole = mirror_images.index(made)
        mirror_images.put(product, store, made)
        product.put_manifest(whole)
        tagged(product, "9.7", whole)
        note = mirror_images.attach(product, made.manifest_descriptor, "its SBOM")
    collect(tmp_path, "--delete-untagged")
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        assert product.manifest("9.7") == whole
        assert not is_there(product, made.digest) and not is_there(product, note.digest)


def test_what_speaks_of_an_image_goes_with_it_where_no_tag_lists_it(tmp_path: Path, store: Store) -> None:
    """As with the referrers API, which neither registry here has: a layout tells it without a tag as well."""
    mirror = open_layout(tmp_path / "layout", create=True)
    repository = mirror.repository("")
    noted = {}
    for tag, number in (("9.7", 1), ("old", 2)):
        whole = mirror_images.publish(repository, store, mirror_images.image(store, number), tag)
        noted[tag] = mirror_images.attach(repository, whole.descriptor, f"SBOM of {tag}")
    assert repository.tags() == ("9.7", "old")
    pruned = prune_registry(mirror, RULES, LATER)
    assert noted["old"].digest in {one.digest for one in pruned.plan.manifests}
    assert is_there(repository, noted["9.7"].digest)
    require_whole(repository)


def test_from_a_registry_that_keeps_the_tags_of_what_is_deleted_exactly_the_unreachable_goes(
    tmp_path: Path, store: Store
) -> None:
    with crane_registry(tmp_path) as host, reached(host) as mirror:
        stock = stocked(mirror, store)
        product = mirror.repository("product")
        dry = prune_registry(mirror, RULES, LATER, dry_run=True)
        pruned = prune_registry(mirror, RULES, LATER)
        assert (pruned.plan, pruned.size, pruned.size_after) == (dry.plan, dry.size, dry.size_after)
        assert not pruned.refused
        assert {tag for tag in product.tags() if not is_auxiliary(tag)} == {"9.7", "stable"}
        require_whole(product)
        assert stock.goes <= {one.digest for one in (*dry.plan.manifests, *dry.plan.blobs)}
        assert not stock.stays & {one.digest for one in dry.plan.manifests if one.repository == "product"}
        assert not [one for one in dry.plan.manifests if is_there(mirror.repository(one.repository), one.digest)]
        assert prune_registry(mirror, RULES, LATER).plan.empty


def test_a_tag_goes_from_a_registry_while_what_it_points_to_stays(tmp_path: Path, store: Store) -> None:
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        whole = mirror_images.publish(product, store, mirror_images.image(store, 1), "9.7")
        tagged(product, "old", whole)
        pruned = prune_registry(mirror, RULES, LATER)
        assert not pruned.refused and pruned.size == 0
        assert product.tags() == ("9.7",)
        require_whole(product)


def test_what_is_being_published_to_a_registry_is_spared_unless_nobody_publishes(tmp_path: Path, store: Store) -> None:
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        mirror_images.publish(product, store, mirror_images.image(store, 1), "9.7")
        arriving = mirror_images.put(product, store, mirror_images.image(store, 2))
        note = mirror_images.attach(product, arriving.descriptor, "its signature")
        signed = mirror_images.put(product, store, mirror_images.image(store, 3))
        stock = PrunableMirror(store)
        signature = stock.signature(product, signed.digest, "by its tag alone", True)
        pruned = prune_registry(mirror, RULES, LATER)
        assert pruned.plan.empty
        arrived = {arriving.digest, note.digest, signed.digest, signature.digest}
        assert arrived <= {one.digest for one in pruned.plan.spared}
        prune_registry(mirror, RULES, LATER, idle=True)
        assert not any(is_there(product, digest) for digest in arrived)
        require_whole(product)


def test_what_a_tag_of_a_registry_left_long_ago_is_found_by_the_history(tmp_path: Path, store: Store) -> None:
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        product = mirror.repository("product")
        first = mirror_images.publish(product, store, mirror_images.image(store, 1), "latest")
        second = mirror_images.put(product, store, mirror_images.image(store, 2))
        for move in (
            Move("latest", None, first.digest, (LATER - 900_000) * 1000, MoveCause.PUBLISH),
            Move("latest", first.digest, second.digest, (LATER - 800_000) * 1000, MoveCause.PUBLISH),
        ):
            write_down(product, move)
        tagged(product, "latest", second)
        early = prune_registry(mirror, MirrorRules(), LATER - 750_000)
        assert early.plan.empty and first.digest in {one.digest for one in early.plan.spared}
        prune_registry(mirror, MirrorRules(), LATER)
        assert not is_there(product, first.digest)
        require_whole(product)


def test_a_registry_that_does_not_delete_is_left_as_it_is_and_that_is_said(tmp_path: Path, store: Store) -> None:
    with docker_registry(tmp_path) as host, reached(host) as mirror:
        stocked(mirror, store)
    before = stored(tmp_path)
    with docker_registry(tmp_path, delete=False) as host, reached(host) as mirror:
        pruned = prune_registry(mirror, RULES, LATER)
        assert {one.digest for one in pruned.plan.manifests} <= {one.digest for one in pruned.refused}
        assert pruned.size == pruned.size_after == 0
        require_whole(mirror.repository("product"))
        once = stored(tmp_path)
        prune_registry(mirror, RULES, LATER)
        require_whole(mirror.repository("product"))
    assert stored(tmp_path) == once and before.items() <= once.items()


STRIDE = 8
"""Every so many deletions, from a drawn one on; all with `RELBUILD_SOAK`."""


class Killed(BaseException):
    """Stands for a kill between two requests."""


def test_killed_at_each_deletion_and_run_again_a_registry_is_as_if_never_killed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with docker_registry(tmp_path / "first") as host, reached(host) as mirror:
        stocked(mirror, store)
        signed = mirror.repository("product").manifest("9.7")
        assert signed is not None
        falsely_listed(mirror.repository("product"), signed.digest)
    shutil.copytree(tmp_path / "first", tmp_path / "model")
    with docker_registry(tmp_path / "model") as host, reached(host) as mirror:
        prune_registry(mirror, RULES, LATER)
        wanted = mirror.inventory()
    left = 0

    def dying(original: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **named: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            original(*arguments, **named)

        return call

    for name in ("remove_manifest", "remove_tag", "put_auxiliary"):
        monkeypatch.setattr(RegistryRepository, name, dying(getattr(RegistryRepository, name)))
    step, killed = first_step("kill a pruning", STRIDE), True
    while killed:
        shutil.copytree(tmp_path / "first", tmp_path / "again")
        with docker_registry(tmp_path / "again") as host, reached(host) as mirror:
            left, killed = step, False
            try:
                prune_registry(mirror, RULES, LATER)
            except Killed:
                killed = True
            left = 0
            require_whole(mirror.repository("product"))
            prune_registry(mirror, RULES, LATER)
            assert mirror.inventory() == wanted, step
        shutil.rmtree(tmp_path / "again")
        step += stride(STRIDE)
    assert step > 10
