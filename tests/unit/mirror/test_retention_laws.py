"""What goes of a mirror and what stays: the laws that hold for any mirror."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.retention.pruning import HeldRepository, Inventory, PruningPlan
from pipeline.mirror.retention.pruning_plan import plan_pruning
from pipeline.mirror.retention.reachability import tag_subject
from pipeline.model.rules import MirrorRules, RetentionRule
from tests.support.examples import examples
from tests.support.inventories import (
    DAY,
    NOW,
    OLD,
    YOUNG,
    InventoryMaker,
    digest,
    mirror,
)

TIMES = st.sampled_from([OLD, NOW - 10 * DAY, YOUNG])


@st.composite
def makers(draw: st.DrawFn, name: str) -> InventoryMaker:
    """Any repository: a manifest refers to what was made before it, to blobs that all repositories share, or to what is
    not there; tags, true and false, point anywhere."""
    maker = InventoryMaker(name)
    made: list[str] = []
    some = st.lists(st.sampled_from([f"blob{number}" for number in range(6)]), max_size=3, unique=True)
    for number in range(draw(st.integers(0, 8))):
        one = f"m{number}"
        targets = st.sampled_from([*made, "missing"])
        kind = draw(st.sampled_from(["image", "index", "referrer"]))
        if kind == "index":
            maker.index(one, *draw(st.lists(targets, max_size=3, unique=True)), since=draw(TIMES))
        else:
            subject = draw(targets) if kind == "referrer" else ""
            maker.image(one, *draw(some), since=draw(TIMES), subject=subject)
        made.append(one)
    anything = st.sampled_from([*made, "missing"])
    for number in range(draw(st.integers(0, 4))):
        maker.tag(f"t{number}", draw(anything), draw(TIMES), draw(st.none() | TIMES))
    for subject in draw(st.lists(anything, max_size=4, unique=True)):
        maker.follow(subject, draw(anything), draw(st.sampled_from(["", ".sig", ".att"])), draw(TIMES))
    if draw(st.booleans()):
        maker.tag(f"sources-{digest(draw(anything)).short}", draw(anything), draw(TIMES))
    return maker


RULES = st.lists(
    st.builds(
        RetentionRule,
        repositories=st.sampled_from(["*", "a"]),
        tags=st.sampled_from(["*", "t0", "t[12]"]),
        keep=st.none() | st.integers(0, 2),
        younger_than=st.none() | st.just(20 * DAY),
        pulled_within=st.none() | st.just(20 * DAY),
    ),
    max_size=3,
).map(lambda rules: MirrorRules(retention=tuple(rules)))

INVENTORIES = st.tuples(makers("a"), makers("b")).map(lambda both: mirror(*both, blobs=["junk"], young_blobs=["fresh"]))


def reached(repository: HeldRepository, roots: set[Digest], tags: set[str]) -> tuple[set[Digest], set[str]]:
    """What is reached, by the slowest and plainest way: until nothing is added. Lists of referrers are not looked
    into, and what speaks of a missing manifest is reached through it. Returns manifests, and tags that follow."""
    here = {one.digest: one for one in repository.manifests}
    found, following = set(roots), set(tags)
    while True:
        more: set[Digest] = set()
        for one in here.values():
            if one.digest in found:
                more |= {child.digest for child in one.children}
                more |= {one.subject} & here.keys() if one.subject else set()
            if one.subject in found:
                more.add(one.digest)
        grown = set(following)
        for tag in repository.tags:
            subject = tag_subject(tag.name)
            if subject and subject[0] in found:
                grown.add(tag.name)
                more |= set() if subject[1] else {tag.digest}
            short = tag.name.removeprefix("sources-")
            if short != tag.name and (tag.digest in found or any(one.short == short for one in found)):
                grown.add(tag.name)
                more.add(tag.digest)
        if more <= found and grown == following:
            return found & here.keys(), following
        found |= more
        following = grown


def expected(inventory: Inventory, rules: MirrorRules) -> tuple[set[tuple[str, Digest]], set[Digest]]:
    """What must stay: manifests by repository, but for lists of referrers, and blobs."""
    tags_gone = {(judged.repository, judged.tag) for judged in plan_pruning(inventory, rules, NOW).tags}
    manifests: set[tuple[str, Digest]] = set()
    blobs = {blob.digest for blob in inventory.blobs if blob.since is not None and NOW - blob.since < rules.grace}
    for repository in inventory.repositories:
        kept = {
            tag.digest
            for tag in repository.tags
            if not is_auxiliary(tag.name) and (repository.name, tag.name) not in tags_gone
        }
        stays, following = reached(repository, kept, set())
        lists = {tag.digest for tag in repository.tags if tag.name in following and is_list(tag.name)}
        young = {
            one.digest
            for one in repository.manifests
            if one.since is not None and NOW - one.since < rules.grace and one.digest not in stays | lists
        }
        young |= {
            tag.digest
            for tag in repository.tags
            if is_auxiliary(tag.name)
            and tag.name not in following
            and not is_list(tag.name)
            and tag.set_at is not None
            and NOW - tag.set_at < rules.grace
        }
        more, _ = reached(repository, young | stays, set())
        manifests |= {(repository.name, one) for one in stays | more}
        blobs |= {blob.digest for one in repository.manifests if one.digest in stays | more for blob in one.blobs}
        blobs |= {child.digest for one in repository.manifests if one.digest in stays | more for child in one.children}
    return manifests, blobs


def is_list(tag: str) -> bool:
    subject = tag_subject(tag)
    return subject is not None and subject[1]


def carried_out(inventory: Inventory, plan: PruningPlan) -> Inventory:
    """The mirror after a plan was carried out, as time goes on."""
    tags = {(one.repository, one.tag) for one in plan.tags}
    manifests = {(one.repository, one.digest) for one in plan.manifests}
    blobs = {one.digest for one in plan.blobs}
    anew = {(one.repository, one.tag): one for one in plan.relisted}
    left = []
    for repository in inventory.repositories:
        known = {one.digest: one for one in repository.manifests}
        held = [one for one in repository.manifests if (repository.name, one.digest) not in manifests]
        kept = []
        for tag in repository.tags:
            relisting = anew.get((repository.name, tag.name))
            if relisting is not None:
                rest = [one for one in known[tag.digest].children if one.digest not in relisting.without]
                index = replace(known[tag.digest], digest=digest(f"{tag.name} anew"), children=tuple(rest), since=NOW)
                held.append(index)
                kept.append(replace(tag, digest=index.digest))
            elif (repository.name, tag.name) not in tags:
                kept.append(tag)
        held.sort(key=lambda one: one.digest)
        left.append(HeldRepository(repository.name, tuple(kept), tuple(held)))
    return Inventory(tuple(left), tuple(blob for blob in inventory.blobs if blob.digest not in blobs))


@settings(max_examples=examples(150), deadline=None)
@given(INVENTORIES, RULES)
def test_exactly_the_unreachable_goes(inventory: Inventory, rules: MirrorRules) -> None:
    plan = plan_pruning(inventory, rules, NOW)
    manifests, blobs = expected(inventory, rules)
    after = carried_out(inventory, plan)
    lists = {(one.name, tag.digest) for one in after.repositories for tag in one.tags if is_list(tag.name)}
    assert {
        (one.name, held.digest) for one in after.repositories for held in one.manifests
    } - lists == manifests - lists
    known = {blob.digest for blob in inventory.blobs}
    assert {blob.digest for blob in after.blobs} == blobs & known


@settings(max_examples=examples(150), deadline=None)
@given(INVENTORIES, RULES)
def test_what_a_tag_reaches_is_as_whole_afterwards_as_before(inventory: Inventory, rules: MirrorRules) -> None:
    after = carried_out(inventory, plan_pruning(inventory, rules, NOW))
    blobs = {blob.digest for blob in inventory.blobs} - {blob.digest for blob in after.blobs}
    for before, repository in zip(inventory.repositories, after.repositories, strict=True):
        left = {one.digest: one for one in repository.manifests}
        missing = {one.digest for one in before.manifests} - left.keys()
        roots = {tag.digest for tag in repository.tags}
        assert not roots & missing
        for one in reached(repository, {tag.digest for tag in repository.tags if not is_list(tag.name)}, set())[0]:
            assert not {child.digest for child in left[one].children} & missing
            assert not {blob.digest for blob in left[one].blobs} & blobs
            assert left[one].subject not in missing


@settings(max_examples=examples(150), deadline=None)
@given(INVENTORIES, RULES)
def test_pruning_again_does_nothing_more(inventory: Inventory, rules: MirrorRules) -> None:
    after = carried_out(inventory, plan_pruning(inventory, rules, NOW))
    again = plan_pruning(after, rules, NOW)
    assert again.empty, again


@settings(max_examples=examples(100), deadline=None)
@given(INVENTORIES, RULES)
def test_the_bytes_that_are_said_are_those_that_go(inventory: Inventory, rules: MirrorRules) -> None:
    def size(held: Inventory) -> int:
        own = sum(one.size for repository in held.repositories for one in repository.manifests)
        return own + sum(blob.size for blob in held.blobs)

    plan = plan_pruning(inventory, rules, NOW)
    written = sum(
        one.size
        for relisting in plan.relisted
        for repository in inventory.repositories
        for one in repository.manifests
        if repository.name == relisting.repository and one.digest == relisting.present
    )
    assert size(inventory) - size(carried_out(inventory, plan)) == plan.size - written


@settings(max_examples=examples(100), deadline=None)
@given(INVENTORIES)
def test_without_rules_no_tag_that_people_pull_by_goes(inventory: Inventory) -> None:
    assert all(is_auxiliary(judged.tag) for judged in plan_pruning(inventory, MirrorRules(), NOW).tags)
