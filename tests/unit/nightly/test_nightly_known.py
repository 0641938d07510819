"""What a night knows of a product before it decides: from the store, the mirror, the last night, and locks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.digest import Digest
from pipeline.errors import (
    EnvironmentLacking,
    PublicationRefused,
    RecipeError,
    RelbuildError,
    UsageError,
    VerificationError,
)
from pipeline.mirror.image_tags import immutable_tag
from pipeline.model.absolute_path import absolute
from pipeline.model.lock import Lock
from pipeline.model.night_record import Outcome, Product
from pipeline.model.published_image import PackageSize
from pipeline.nightly import night_planner, published_products
from pipeline.nightly.catalogue import CatalogueEntry
from pipeline.nightly.inputs import templates_digest
from pipeline.nightly.inputs_record import InputsRecord
from pipeline.nightly.night_planner import Decision
from pipeline.nightly.no_change import NOTHING_CHANGED
from pipeline.resolve import write_lock
from pipeline.store import Store
from tests.support.builds import package, section
from tests.support.journal import Journal
from tests.support.planned_nights import CHILD, PLATFORMS, Nights, Tags

UNVERIFIED = "the published image has no record of a night that could be verified"


@pytest.fixture
def nights(tmp_path: Path, journal: Journal) -> Nights:
    return Nights(tmp_path, journal)


# --- what stands on the mirror -----------------------------------------------------------------------------


def test_what_the_store_remembers_counts_only_while_the_mirror_has_it(nights: Nights) -> None:
    on_mirror = nights.publish()
    assert nights.mirror is not None
    nights.mirror.tags["base", on_mirror.immutable] = Digest.of(b"another")
    assert nights.decide().on_mirror is None
    nights.mirror.tags.clear()
    job = nights.decide().job
    assert job is not None and job.why == "not published yet"
    nights.mirror = None
    assert nights.decide().on_mirror is None


def test_what_was_published_of_another_platform_is_not_compared_with(nights: Nights) -> None:
    nights.publish()
    nights.change(
        "repositories.yaml", "platforms:\n", "platforms:\n" + PLATFORMS.split("\n", 1)[1].replace("el9", "el10")
    )
    nights.change("base.yaml", "platform: el9", "platform: el10")
    job = nights.decide().job
    assert job is not None and job.why == "not published yet"


def test_a_memory_that_cannot_be_read_is_told_once_and_the_mirror_is_asked(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights.publish()
    monkeypatch.setattr(Store, "recall", lambda store, name: {"no": "standing"})
    planner = nights.planner()
    assert nights.decide(planner=planner).job is not None
    nights.decide(planner=planner)
    assert len([text for text in nights.progress.warnings if "the cached record" in text]) == 1


class Attested:
    """A mirror on which a record is attested, seen by a machine that remembers nothing."""

    def __init__(self, nights: Nights) -> None:
        self.nights = nights
        self.key = absolute(nights.folder / "key")
        job = nights.decide(key=self.key).job
        assert job is not None and nights.mirror is not None
        self.digest = Digest.of(b"attested")
        self.immutable = immutable_tag("1", 1_700_000_000, self.digest)
        facts = {**dict(job.facts), "templates": "none"}
        self.record: InputsRecord | None = InputsRecord(tuple(sorted(facts.items())), (), dict(job.locks)["base"])
        nights.change("base.yaml", "files: [{template: page.j2, path: /page}, {source", "files: [{source")
        self.record = replace(self.record, facts=self._facts(nights))
        self.images = 1
        for tag in ("latest", "1", self.immutable):
            nights.mirror.tags["base", tag] = self.digest
        nights.journal.stand_in(published_products, published_products.load_verifying_key, gives="public")
        nights.journal.stand_in(
            published_products, published_products.read_published, lambda repository, reference: self._held()
        )
        for check in (published_products.require_identity, published_products.check_tag):
            nights.journal.stand_in(published_products, check)
        nights.journal.stand_in(published_products, published_products.attested_inputs, lambda *given: self.record)

    def _facts(self, nights: Nights) -> tuple[tuple[str, str], ...]:
        job = nights.decide(key=self.key).job
        assert job is not None
        facts = {**dict(job.facts), "templates": templates_digest(nights.planner().catalogue.entries[0].recipe, ())}  # type: ignore[arg-type]
        return tuple(sorted(facts.items()))

    def _held(self) -> Any:
        return SimpleNamespace(
            images=("image",) * self.images, manifest="m", digest=self.digest, version="1", created=1_700_000_000
        )

    def decide(self) -> Decision:
        return self.nights.decide(key=self.key)


@pytest.fixture
def attested(nights: Nights) -> Attested:
    return Attested(nights)


def test_a_new_machine_compares_with_what_is_attested_of_the_newest_image(attested: Attested) -> None:
    decision = attested.decide()
    assert decision.job is None and decision.product.run.why == NOTHING_CHANGED
    assert decision.product.published.digest == attested.digest and decision.product.published.version == "1"
    assert decision.product.published.tags == ("1", "latest")
    names = attested.nights.journal.names
    assert names.index("require_identity") < names.index("check_tag") < names.index("attested_inputs")


def test_the_image_that_the_last_night_told_of_is_asked_for_by_digest(attested: Attested) -> None:
    planner = attested.nights.planner()
    product = planner.plan(planner.catalogue.entries[0])
    product = replace(product, published=replace(product.published, digest=attested.digest, build_took=7))
    attested.nights.previous["base"] = product
    decision = attested.decide()
    assert decision.job is None and decision.product.published.build_took == 7
    assert attested.nights.journal.of(published_products.check_tag) == [], "no tag is believed"
    assert attested.nights.journal.last(published_products.read_published).args[1] == attested.digest


@pytest.mark.parametrize("lacking", ["record", "one-image", "immutable", "latest"])
def test_what_nothing_is_attested_of_is_built(lacking: str, attested: Attested) -> None:
    assert attested.nights.mirror is not None
    tags = attested.nights.mirror.tags
    if lacking == "record":
        attested.record = None
    elif lacking == "one-image":
        attested.images = 2
    else:
        del tags["base", attested.immutable if lacking == "immutable" else "latest"]
    decision = attested.decide()
    assert decision.on_mirror is None and decision.job is not None
    assert decision.job.why == ("not published yet" if lacking == "latest" else UNVERIFIED)


def test_an_image_without_a_key_to_verify_it_is_not_called_unpublished(attested: Attested) -> None:
    job = attested.nights.decide().job
    assert job is not None and job.why == "without --key it cannot be verified what the published image was made from"


FAULTS = [
    VerificationError("registry-digest", "another digest was sent"),
    EnvironmentLacking("registry-failing", "status 500"),
    EnvironmentLacking("registry-denied", "status 403"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code)
@pytest.mark.parametrize("unreadable", ["latest", "1", "immutable"])
@pytest.mark.parametrize("key", [False, True])
def test_a_product_with_a_tag_that_cannot_be_read_is_refused_before_it_is_built(
    unreadable: str, key: bool, fault: RelbuildError, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mirror = nights.publish(tags=("1", "latest"))
    nights.change("base.yaml", "[/a]", "[/b]")
    bad = on_mirror.immutable if unreadable == "immutable" else unreadable

    def resolve(tags: Tags, tag: str) -> Digest | None:
        if tag == bad:
            raise fault
        return tags.tags.get((tags.name, tag))

    monkeypatch.setattr(Tags, "resolve", resolve)
    with pytest.raises(PublicationRefused, match=re.escape(f"tag '{bad}' cannot be read")) as refused:
        nights.decide(key=absolute(nights.folder / "key") if key else None)
    assert refused.value.code == "tag-unreadable" and str(fault) in str(refused.value)
    assert refused.value.problems[0].hint and nights.progress.warnings == []


def test_a_tag_that_was_never_published_and_cannot_be_read_is_not_called_missing(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> None:
        raise EnvironmentLacking("registry-failing", "status 500")

    monkeypatch.setattr(Tags, "resolve", refuse)
    with pytest.raises(PublicationRefused, match="tag 'latest' cannot be read"):
        nights.decide()
    assert nights.journal.of(night_planner.solve) == []


def test_a_product_that_stays_as_it_is_or_is_only_tested_needs_no_other_tag(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_mirror = nights.publish(tags=("1", "latest"))
    asked: list[str] = []

    def resolve(tags: Tags, tag: str) -> Digest | None:
        asked.append(tag)
        return tags.tags.get((tags.name, tag))

    monkeypatch.setattr(Tags, "resolve", resolve)
    assert nights.decide().job is None
    nights.runtime = "crun 1.8"
    job = nights.decide().job
    assert job is not None and job.test_only
    assert set(asked) == {on_mirror.immutable}


@pytest.mark.parametrize(
    "check", [published_products.require_identity, published_products.check_tag, published_products.attested_inputs]
)
def test_what_is_attested_and_is_not_genuine_is_told_and_built_anew(check: Any, attested: Attested) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise VerificationError("signature-bad", "another key")

    attested.nights.journal.stand_in(published_products, check, refuse)
    decision = attested.decide()
    assert decision.on_mirror is None and decision.job is not None
    (warning,) = attested.nights.progress.warnings
    assert "'base'" in warning and "another key" in warning


# --- what is known of a product ----------------------------------------------------------------------------


def test_a_recipe_that_is_wrong_is_told_with_what_stands_of_its_product(nights: Nights) -> None:
    nights.publish()
    nights.change("base.yaml", "version", "versoin")
    planner = nights.planner()
    (entry,) = planner.catalogue.entries
    with pytest.raises(RecipeError):
        planner.plan(entry)
    known = planner.as_known(entry, None)
    assert known.run.outcome is Outcome.FAILED and known.published.digest == Digest.of(b"base")
    nothing = planner.as_known(CatalogueEntry(Path("new.yaml"), "new", None), None)
    assert nothing.run.outcome is Outcome.FAILED and nothing.published.digest is None


def test_a_product_that_cannot_be_made_keeps_what_stands_there_of_its_own_platform(nights: Nights) -> None:
    nights.publish()
    planner = nights.planner()
    (entry,) = planner.catalogue.entries
    product = planner.plan(entry)
    assert planner.as_known(entry, product).published.digest == Digest.of(b"base")
    assert planner.as_known(entry, replace(product, platform="el10")).published.digest is None


def test_a_platform_that_is_not_there_is_told_when_the_product_is_planned(nights: Nights) -> None:
    nights.change("base.yaml", "platform: el9", "platform: el8")
    planner = nights.planner()
    with pytest.raises((RecipeError, UsageError)) as caught:
        planner.plan(planner.catalogue.entries[0])
    assert caught.value.code == "platform-unknown"


def _sized(product: Product, *names: str) -> Product:
    sizes = tuple(PackageSize(name, "1-1", "noarch", "base", f"{name}-1-1.src.rpm", 1) for name in names)
    return replace(product, published=replace(product.published, packages=sizes))


def test_the_packages_of_an_image_are_as_the_last_night_said_else_as_locks_say_else_unknown(nights: Nights) -> None:
    nights.write("child.yaml", CHILD)
    planner = nights.planner()
    entries: Mapping[str, CatalogueEntry] = {entry.name: entry for entry in planner.catalogue.entries}
    assert planner.packages(entries["child"]) is None
    for name, nevra in (("base", "a-1-1.noarch"), ("child", "b-1-1.noarch")):
        write_lock(nights.folder / "recipes" / f"{name}.lock", Lock(name, (section(package(nevra)),)))
    assert planner.packages(entries["child"]) == {"a", "b"}
    assert planner.packages(entries["base"]) == {"a"}
    nights.mirror = None
    planner = nights.planner()
    planner.published.previous = {"child": _sized(planner.plan(entries["child"]), "c", "d")}
    assert planner.packages(entries["child"]) == {"c", "d"}
