"""What a night decides about each product, from what was published: build it, test it again, or leave it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compression import Compression
from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking, ResolutionError
from pipeline.model.absolute_path import absolute
from pipeline.model.lock import Lock
from pipeline.model.night_record import Outcome, Product
from pipeline.nightly import night_planner, platform_state
from pipeline.nightly.inputs import looked_for_templates, templates_digest
from pipeline.nightly.inputs_record import recall_published, remember_published
from pipeline.nightly.no_change import NOTHING_CHANGED
from pipeline.resolve import parse_lock, write_lock
from tests.support.builds import package, section
from tests.support.journal import Journal
from tests.support.planned_nights import CHILD, PAGE, RECIPE, Nights, Tags


@pytest.fixture
def nights(tmp_path: Path, journal: Journal) -> Nights:
    return Nights(tmp_path, journal)


# --- what is decided ---------------------------------------------------------------------------------------


def test_what_was_never_published_is_built_from_tonights_lock(nights: Nights) -> None:
    decision = nights.decide()
    assert decision.job is not None and decision.on_mirror is None
    assert decision.job.why == "not published yet"
    assert not decision.job.resolve and not decision.job.test_only and not decision.job.may_be_same
    ((name, text),) = decision.job.locks
    (found,) = parse_lock(text, name).sections
    assert name == "base" and [str(one.package.nevra) for one in found.resolution.chosen] == ["a-1-1.noarch"]
    assert nights.journal.last(night_planner.solve).options["package_pool"] == "pool"


def test_a_product_of_which_nothing_changed_is_not_even_resolved(nights: Nights) -> None:
    on_mirror = nights.publish()
    decision = nights.decide()
    assert decision.job is None and decision.product.run.why == NOTHING_CHANGED and nights.resolved == 0
    assert decision.product.run.outcome is Outcome.UNCHANGED
    assert decision.on_mirror is not None and decision.on_mirror.record == on_mirror.record
    assert (decision.product.published.digest, decision.product.published.immutable) == (
        on_mirror.digest,
        on_mirror.immutable,
    )


DATABASE_CHANGED = "the folder or format of the RPM database changed"


@pytest.mark.parametrize(
    ("name", "before", "after", "why"),
    [
        ("base.yaml", "[/a]", "[/b]", "the recipe changed"),
        (PAGE, "a page", "another page", "a template changed"),
        ("notes.txt", "notes", "other notes", "a copied file changed"),
        ("repositories.yaml", "nowhere", "elsewhere", "the definition of the repositories changed"),
        ("repositories.yaml", "el9: {", "el9: {rpm-database: {format: bdb}, ", DATABASE_CHANGED),
        ("repositories.yaml", "el9: {", "el9: {rpm-database: /opt/rpm, ", DATABASE_CHANGED),
    ],
)
def test_what_is_made_from_other_inputs_is_built_and_told_which(
    name: str, before: str, after: str, why: str, nights: Nights
) -> None:
    nights.publish()
    nights.change(name, before, after)
    job = nights.decide().job
    assert job is not None and not job.test_only and job.why == why


@pytest.mark.parametrize("found", ["site.j2", "templates/site.j2"])
def test_a_template_that_was_looked_for_in_vain_and_comes_to_be_is_a_change(found: str, nights: Nights) -> None:
    nights.looked_for = (PAGE, "site.j2")
    nights.publish()
    assert nights.decide().job is None
    (nights.folder / "recipes" / "templates").mkdir()
    assert nights.decide().job is None, "a folder alone is none"
    nights.write(found, "")
    job = nights.decide().job
    assert job is not None and job.why == "a template changed"


def test_a_template_that_is_found_nearer_to_the_recipe_is_a_change(nights: Nights) -> None:
    folder = nights.folder / "recipes"
    (folder / "templates").mkdir()
    (folder / PAGE).rename(folder / "templates" / PAGE)
    nights.publish()
    assert nights.decide().job is None
    nights.write(PAGE, "a page")
    assert nights.decide().job is None, "it says the same"
    nights.write(PAGE, "a nearer page")
    job = nights.decide().job
    assert job is not None and job.why == "a template changed"


def test_a_template_that_became_a_link_out_of_the_catalogue_is_a_change(nights: Nights) -> None:
    """Its build is an error, which the night has to tell."""
    nights.looked_for = (PAGE, "site.j2")
    nights.publish()
    (nights.folder / "recipes" / "site.j2").symlink_to("/etc/passwd")
    job = nights.decide().job
    assert job is not None and job.why == "a template changed"


def test_a_record_of_before_names_were_looked_for_leads_to_one_build(nights: Nights) -> None:
    """Its names are those of files that were found, which does not tell what else would be taken."""
    on_mirror = nights.publish()
    former = Digest.of(canonical_json([[PAGE, str(Digest.of(b"a page"))]]))
    facts = {**on_mirror.record.inputs, "templates": str(former)}
    record = replace(on_mirror.record, facts=tuple(sorted(facts.items())))
    known = recall_published(nights.store, f"dir:{nights.folder}/mirror", "base", print)
    assert known is not None and known.product is not None
    remember_published(nights.store, f"dir:{nights.folder}/mirror", known.product, replace(known, record=record))
    job = nights.decide().job
    assert job is not None and job.why == "a template changed"
    nights.settle(job, Digest.of(b"base"))
    assert nights.decide().job is None


def test_an_image_without_templates_has_the_digest_of_before(nights: Nights) -> None:
    recipe = nights.planner().catalogue.entries[0].recipe
    assert recipe is not None and templates_digest(recipe, ()) == str(Digest.of(b"[]"))
    assert looked_for_templates([(), ()]) == ((), str(Digest.of(b"[]")))


def test_the_digest_of_templates_is_of_what_each_image_was_made_from(nights: Nights) -> None:
    recipe = nights.planner().catalogue.entries[0].recipe
    assert recipe is not None
    page, missing = (PAGE, str(Digest.of(b"a page"))), ("site.j2", "missing")
    names, digest = looked_for_templates([(page,), (page, missing)])
    assert names == (PAGE, "site.j2") and digest == templates_digest(recipe, names)
    _, mixed = looked_for_templates([(page,), ((PAGE, str(Digest.of(b"meanwhile"))),)])
    for text in ("a page", "meanwhile"):
        nights.write(PAGE, text)
        assert mixed != templates_digest(recipe, (PAGE,)), "neither image's alone: it is built again"


def test_inputs_that_the_night_itself_gives_count_too(nights: Nights) -> None:
    nights.publish()
    compressed = nights.decide(compression=Compression.ZSTD).job
    assert compressed is not None and compressed.why == "the compression of layers changed"
    signed = nights.decide(key=absolute(nights.folder / "key"), fingerprint="other").job
    assert signed is not None and signed.why == "the signing key changed"
    assert nights.decide(fingerprint="whatever").job is None, "without a key nothing is signed anew"


def test_other_checks_or_another_runtime_test_the_published_image_again_and_build_nothing(nights: Nights) -> None:
    nights.publish()
    nights.runtime = "crun 1.8"
    job = nights.decide().job
    assert job is not None and job.test_only and job.why == "the runtime of the tests changed"
    nights.change("base.yaml", "log: ready", "log: serving")
    job = nights.decide().job
    assert job is not None and job.test_only and nights.resolved == 0
    assert job.why == "the checks and the runtime of the tests changed"
    nights.change("base.yaml", "[/a]", "[/b]")
    job = nights.decide().job
    assert job is not None and not job.test_only, "an image that will be another is not tested as it was"


def test_repositories_that_moved_on_and_offer_the_same_change_nothing_and_are_asked_once(nights: Nights) -> None:
    nights.publish()
    nights.state = b"tuesday"
    decision = nights.decide()
    assert decision.job is None and nights.resolved == 1
    assert decision.product.run.why == "the repositories changed, this product's packages did not"
    assert decision.on_mirror is not None
    remember_published(
        nights.store,
        f"dir:{nights.folder}/mirror",
        decision.product,
        replace(decision.on_mirror, product=decision.product),
    )
    again = nights.decide()
    assert again.job is None and again.product.run.why == NOTHING_CHANGED and nights.resolved == 0


def test_other_packages_are_built_with_the_lock_that_has_them(nights: Nights) -> None:
    nights.publish()
    nights.state, nights.packages = b"tuesday", ("a-2-1.noarch",)
    job = nights.decide().job
    assert job is not None and job.why == "packages changed" and "a-2-1" in dict(job.locks)["base"]
    nights.change("base.yaml", "[/a]", "[/b]")
    job = nights.decide().job
    assert job is not None and job.why == "packages changed and the recipe changed"


def test_moved_repositories_and_other_checks_are_a_test_alone(nights: Nights) -> None:
    nights.publish()
    nights.state = b"tuesday"
    nights.change("base.yaml", "log: ready", "log: serving")
    job = nights.decide().job
    assert job is not None and job.test_only and job.why == "the checks changed"


def test_who_asks_for_a_test_gets_one_although_nothing_changed(nights: Nights) -> None:
    nights.publish()
    job = nights.decide(retest=True).job
    assert job is not None and not job.test_only and job.why == "requested"


def test_numbers_of_owners_are_those_of_the_published_lock(nights: Nights) -> None:
    nights.accounts = (("user", "a", 901),)
    nights.publish()
    nights.state, nights.packages, nights.accounts = b"tuesday", ("a-2-1.noarch",), (("user", "a", 5),)
    job = nights.decide().job
    assert job is not None
    (found,) = parse_lock(dict(job.locks)["base"], "base").sections
    assert found.accounts == (("user", "a", 901),)


# --- what is built from another ----------------------------------------------------------------------------


@pytest.fixture
def family(nights: Nights) -> Nights:
    """A catalogue of a product and one that is built from it, both published."""
    nights.write("child.yaml", CHILD)
    nights.publish()
    nights.publish("child")
    return nights


def test_what_is_built_from_another_is_resolved_by_the_worker_that_has_that_images_packages(nights: Nights) -> None:
    nights.write("child.yaml", CHILD)
    base = nights.publish()
    job = nights.decide("child").job
    assert job is not None and job.resolve and job.parents == (("x86_64", base.digest),) and nights.resolved == 0
    assert job.locks == (("base", base.record.lock),), "from which numbers and groups are kept"


def test_a_child_of_what_is_unchanged_is_unchanged(family: Nights) -> None:
    decision = family.decide("child")
    assert decision.job is None and decision.product.run.why == NOTHING_CHANGED and family.resolved == 0


def test_a_child_of_another_image_is_built_anew(family: Nights) -> None:
    family.mirror = Tags()
    base = family.publish(digest=Digest.of(b"tonight"))
    family.publish("child", Digest.of(b"child"))
    assert family.decide("child").job is None
    family.change("base.yaml", "[/a]", "[/b]")
    planner = family.planner()
    entry = planner.catalogue.find("child")
    assert entry is not None
    tonight = Product("base", "base.yaml", "el9", "x86_64", planner.plan(entry).run)
    tonight = replace(tonight, published=replace(tonight.published, digest=Digest.of(b"newer")))
    job = planner.decide(entry, planner.plan(entry), tonight, {"base": base.record.lock}).job
    assert job is not None and job.parents == (("x86_64", Digest.of(b"newer")),)
    assert job.why == "the parent image changed" and not job.may_be_same


def test_a_child_whose_repositories_moved_may_come_out_the_same(family: Nights) -> None:
    family.state = b"tuesday"
    job = family.decide("child").job
    assert job is not None and job.resolve and job.may_be_same
    assert [name for name, _ in job.locks] == ["child", "base"]


# --- platforms ---------------------------------------------------------------------------------------------


def test_repositories_are_opened_once_a_night_for_all_products(nights: Nights) -> None:
    nights.write("second.yaml", RECIPE % "second")
    planner = nights.planner()
    for name in ("base", "second"):
        nights.decide(name, planner)
    assert nights.resolved == 2
    for function in (
        platform_state.open_repositories,
        platform_state.open_pool,
        platform_state.load_keys,
        night_planner.find_runtime,
    ):
        assert len(nights.journal.of(function)) == 1
    ((offer),) = planner.platform_states
    assert (offer.platform.name, offer.arch) == ("el9", "x86_64")
    assert [(one.repository, one.digest) for one in planner.states] == [("base", Digest.of(b"monday"))]


def test_repositories_that_cannot_be_read_fail_each_product_and_are_asked_once(nights: Nights) -> None:
    nights.write("second.yaml", RECIPE % "second")
    nights.fault = EnvironmentLacking("download-failed", "no answer")
    planner = nights.planner()
    for name in ("base", "second"):
        with pytest.raises(EnvironmentLacking, match="no answer"):
            nights.decide(name, planner)
    assert len(nights.journal.of(platform_state.open_repositories)) == 1
    (state,) = planner.states
    assert state.digest is None and "no answer" in state.problem


BY_PLATFORM = """\
platforms:
  el9: {families: [el], architectures: [x86_64], repositories: [{id: base, baseurls: [file:///nowhere], keys: [/key]}]}
  other: {architectures: [x86_64], repositories: [{id: base, baseurls: [file:///other], keys: [/key]}]}
add-ons:
  vendor: {platforms: {el: [{id: vendor, baseurls: [file:///vendor], keys: [/key]}]}}
"""


def test_products_choose_by_the_nights_platform_and_have_add_ons_of_their_own(nights: Nights) -> None:
    nights.write("repositories.yaml", BY_PLATFORM)
    entries = "{any: {}, el: {add-ons: [vendor], packages: {a: vendor-a}}, other: {packages: {a: other-a}}}"
    nights.write("second.yaml", RECIPE % "second" + f"platforms: {entries}\n")
    planner = nights.planner()
    products = {name: nights.decide(name, planner).product for name in ("base", "second")}
    assert {product.platform for product in products.values()} == {"el9"}
    with_add_ons = [[one.platform.full_name for one in planner.states_of(product)] for product in products.values()]
    assert with_add_ons == [["el9"], ["el9+vendor"]]
    assert [(one.platform, one.repository) for one in planner.states] == [("el9", "base"), ("el9", "vendor")]
    solved = nights.journal.last(night_planner.solve).args[0]
    assert [one.text for one in solved.layers[0].requests] == ["vendor-a"]
    elsewhere = nights.planner(platform="other")
    (state,) = elsewhere.states_of(nights.decide("second", elsewhere).product)
    assert state.platform.full_name == "other"
    assert [one.text for one in nights.journal.last(night_planner.solve).args[0].layers[0].requests] == ["other-a"]


def test_a_change_of_another_platforms_entry_changes_nothing(nights: Nights) -> None:
    nights.write("repositories.yaml", BY_PLATFORM)
    nights.write("base.yaml", RECIPE % "base" + "platforms:\n  el: {add-ons: [vendor]}\n  other: {}\n")
    nights.publish()
    nights.change("base.yaml", "other: {}", "other: {packages: {a: other-a}}")
    assert nights.decide().product.run.why == NOTHING_CHANGED
    nights.change("base.yaml", "[vendor]}", "[vendor], packages: {a: vendor-a}}")
    decision = nights.decide()
    assert decision.job is not None and decision.job.why == "the recipe changed"


def test_a_product_that_cannot_be_built_on_the_nights_platform_fails_by_its_name(nights: Nights) -> None:
    nights.write("repositories.yaml", BY_PLATFORM)
    nights.write("second.yaml", RECIPE % "second" + "platforms: {el: {}}\n")
    entry = nights.planner(platform="other").catalogue.find("second")
    assert entry is not None and entry.error is not None
    assert entry.error.code == "platform-unsupported"


# --- with locks that are committed -------------------------------------------------------------------------


def test_with_committed_locks_no_repository_is_opened_and_another_lock_is_another_product(nights: Nights) -> None:
    first = nights.decide().job
    assert first is not None
    committed = parse_lock(dict(first.locks)["base"], "base")
    write_lock(nights.folder / "recipes" / "base.lock", committed)
    nights.publish(locked=True)
    decision = nights.decide(locked=True)
    assert decision.job is None and decision.product.run.why == NOTHING_CHANGED
    assert nights.journal.of(platform_state.open_repositories) == [] and nights.resolved == 0
    nights.packages = ("a-2-1.noarch",)
    newer = section(package("a-2-1.noarch"), inputs=committed.sections[0].inputs)
    write_lock(nights.folder / "recipes" / "base.lock", Lock("base", (newer,)))
    job = nights.decide(locked=True).job
    assert job is not None and job.why == "packages changed" and nights.resolved == 0


def test_a_committed_lock_that_is_stale_or_missing_fails_the_product(nights: Nights) -> None:
    with pytest.raises(ResolutionError):
        nights.decide(locked=True)
    write_lock(nights.folder / "recipes" / "base.lock", Lock("base", (section(package("a-1-1.noarch")),)))
    with pytest.raises(ResolutionError) as caught:
        nights.decide(locked=True)
    assert caught.value.code == "lock-stale"
