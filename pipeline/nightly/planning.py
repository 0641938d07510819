"""The decisions of a night about each product of a catalogue.

What is to be done is nothing, where what it is made from and tested with is what it was; else a job. One state of a
platform's repositories is opened once and shared by all recipes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.digest import Digest, canonical_json, digest_file
from pipeline.errors import RelbuildError, UsageError, VerificationError
from pipeline.gather import Order, Workshop
from pipeline.gather.locking import choose_architecture, choose_platform
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.published import read_held
from pipeline.mirror.signed_identity import require_identity
from pipeline.mirror.tag_check import check_tag
from pipeline.mirror.tags import floating_tags, immutable_tag
from pipeline.model.absolute_path import absolute
from pipeline.model.lock import Lock, LockSection
from pipeline.model.night import Outcome, Product, ProductRun, RepositoryState
from pipeline.model.platform import Platform
from pipeline.model.recipe import Recipe
from pipeline.nightly.catalogue import Catalogue, Entry, groups_itself
from pipeline.nightly.inputs import OFFER, TESTING, differing, in_words, making, templates, testing
from pipeline.nightly.quiet import NOTHING_NEW
from pipeline.nightly.record import Standing, attested_record, recall
from pipeline.nightly.settling import same_packages
from pipeline.nightly.working import Job, Making, password_of, why_built
from pipeline.oci import VerifyingKey, load_verifying_key
from pipeline.progress import task
from pipeline.repos import Key, OpenRepository, load_keys, open_repositories
from pipeline.resolve import (
    Bulletin,
    Mode,
    Universe,
    decide,
    format_lock,
    inputs,
    lock_path,
    open_universe,
    parse_lock,
    read_lock,
    solve,
    stale,
)
from pipeline.sandbox import find_runtime


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about a product: `job` if something is to be done.

    Else `product` as it stands, and `standing` to be remembered of it.
    """

    product: Product
    job: Job | None = None
    standing: Standing | None = None


@dataclass(slots=True)
class Offer:
    """A platform for one architecture, as it is tonight; or why it cannot be read."""

    platform: Platform
    arch: str
    keys: tuple[Key, ...] = ()
    repositories: tuple[OpenRepository, ...] = ()
    universe: Universe | None = None
    error: RelbuildError | None = None
    bulletin: Bulletin | None = None

    @property
    def digest(self) -> str:
        """The digest of all that the repositories offer."""
        return str(Digest.of(canonical_json([[one.repository.id, str(one.repomd)] for one in self.repositories])))


@dataclass(slots=True)
class Planner:
    """The planner of a night, which decides about one product after the other.

    `former` is what the last night said, by product; `mirror` is None where there is none yet; `remembered` is what the
    store knew, by product.
    """

    catalogue: Catalogue
    making: Making
    workshop: Workshop
    mirror: Mirror | None
    former: Mapping[str, Product]
    remembered: dict[str, Standing] = field(default_factory=dict)
    _offers: dict[tuple[str, str], Offer] = field(default_factory=dict)
    _key: VerifyingKey | None = None
    _runtime: str = ""
    _told: set[str] = field(default_factory=set)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The platforms that were looked at."""
        return tuple(self._offers.values())

    @property
    def states(self) -> tuple[RepositoryState, ...]:
        """The states of the repositories that were looked at, as they offered them."""
        found = []
        for offer in self._offers.values():
            opened = {one.repository.id: one.repomd for one in offer.repositories}
            problem = str(offer.error) if offer.error else ""
            found += [
                RepositoryState(
                    offer.platform.name,
                    offer.arch,
                    one.id,
                    opened.get(one.id),
                    problem,
                    advisories=offer.bulletin is not None and one.id in offer.bulletin.advisories.heard,
                )
                for one in offer.platform.repositories
            ]
        return tuple(found)

    def plan(self, entry: Entry) -> Product:
        """Return the product as it stands before anything is done.

        Raises RelbuildError if the recipe is wrong, or its platform cannot be used.
        """
        if entry.recipe is None:
            assert entry.error is not None
            raise entry.error
        order = self._order(entry)
        platform = choose_platform(entry.recipe, order)
        arch = choose_architecture(entry.recipe, platform, order)
        return Product(
            entry.name,
            str(entry.path),
            platform.name,
            arch,
            ProductRun(Outcome.UNCHANGED, "", began=int(self.workshop.clock() * 1000)),
            labels=entry.recipe.image.labels,
            description=dict(entry.recipe.image.labels).get(DESCRIPTION, ""),
            end_of_life=entry.recipe.end_of_life,
            parent=entry.parent,
        )

    def last(self, name: str) -> Product | None:
        """Return the product as the night before reported it."""
        known = self._recalled(name) if self.mirror else None
        return known.product if known is not None and known.product is not None else self.former.get(name)

    def _recalled(self, name: str) -> Standing | None:
        return recall(self.workshop.store, str(self.making.to), name, self._warn)

    def _warn(self, text: str) -> None:
        """Say it once: the same document is read for several questions."""
        if text not in self._told:
            self._told.add(text)
            self.workshop.progress.warn(text)

    def packages(self, entry: Entry) -> Collection[str] | None:
        """Return the names of the packages of an entry's image, None if nobody knows.

        They are as the last night said, else as its lock and those of what it is built from say.
        """
        known = self.last(entry.name)
        if known is not None and known.published.packages:
            return {package.name for package in known.published.packages}
        names: set[str] = set()
        for path in (entry.path, *(one.path for one in self.catalogue.below(entry.name))):
            lock = read_lock(lock_path(path))
            if lock is None:
                return None
            names |= {one.package.nevra.name for section in lock.sections for one in section.resolution.chosen}
        return names

    def as_known(self, entry: Entry, product: Product | None) -> Product:
        """Return a product of which nothing can be done tonight, with all that is known of it.

        What is known is what stands there. `product` is None where not even its platform is known.
        """
        last = self.last(entry.name)
        if product is None:
            run = ProductRun(Outcome.FAILED, "")
            return replace(last, run=run) if last else Product(entry.name, str(entry.path), "", "", run)
        if last is None or (last.platform, last.arch) != (product.platform, product.arch):
            return product
        return replace(product, published=last.published)

    def decide(self, entry: Entry, product: Product, parent: Product | None, locks: Mapping[str, str]) -> Decision:
        """Decide what is to be done about a product.

        `parent` is what became tonight of what it is built from, `locks` the texts of the locks of all that was decided
        before. Raises RelbuildError.
        """
        recipe = entry.recipe
        assert recipe is not None
        offer = self._offer(entry, product)
        facts = self._facts(entry, recipe, offer, parent)
        standing = self._standing(product)
        changed: frozenset[str] = frozenset()
        if standing is not None:
            facts["templates"] = templates(recipe, standing.record.templates)
            if self.making.key is None:
                facts["key"] = standing.record.inputs.get("key", "")
            product = _as_it_stands(product, standing)
            changed = frozenset(differing(standing.record.inputs, facts))
        # What is built from another needs its packages, and layers that group themselves need the packages' changelogs.
        on_worker = bool(entry.parent) or (not self.making.locked and groups_itself(recipe))
        job = Job(
            product=product,
            recipe=absolute(entry.path),
            making=self.making,
            facts=tuple(sorted(facts.items())),
            locks=self._locks(entry, standing, locks),
            why=_why(standing, changed),
            standing=standing,
            parent=parent.published.digest if parent else None,
            resolve=on_worker,
        )
        if standing is not None and OFFER not in changed and changed <= TESTING and not self.making.retest:
            return _only_tests(job, standing, changed, NOTHING_NEW)
        if on_worker:
            return Decision(product, job, standing)
        text = self._resolved(entry, recipe, offer, standing)
        job = replace(job, locks=((entry.name, text),), why=why_built(standing, text, facts))
        if standing is not None and same_packages(standing.record.lock, text) and not self.making.retest:
            changed -= {OFFER}
            if changed <= TESTING:
                return _only_tests(job, standing, changed, "the repositories changed, this product's packages did not")
        return Decision(product, job, standing)

    def _locks(self, entry: Entry, standing: Standing | None, locks: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return the locks from which account numbers and groups of packages are kept.

        They are those of what a product is built from and whose layers it shares, and its own former one.
        """
        below = [(one.name, locks[one.name]) for one in self.catalogue.below(entry.name) if locks.get(one.name)]
        shared = [(one.path.stem, locks[one.name]) for one in self.catalogue.followed(entry) if locks.get(one.name)]
        return (*shared, *([(entry.name, standing.record.lock)] if standing else []), *below)

    # --- what it is made from ---------------------------------------------------------------------

    def _order(self, entry: Entry) -> Order:
        making = self.making
        return Order(
            recipe=entry.path,
            repositories=making.repositories,
            platform=making.platform,
            architectures=making.architectures,
        )

    def _facts(self, entry: Entry, recipe: Recipe, offer: Offer, parent: Product | None) -> dict[str, str]:
        given = dict(inputs(recipe, offer.platform, offer.arch, offer.keys))
        return {
            **making(recipe, self.making.compression, self.making.fingerprint),
            **testing(recipe, self._tested_with(), full=self.making.full),
            "repositories": str(given["repositories"]),
            "keys": str(given["keys"]),
            "parent": str(parent.published.digest) if parent else "none",
            "templates": "none",
            OFFER: self._locked_offer(entry) if self.making.locked else offer.digest,
        }

    def _locked_offer(self, entry: Entry) -> str:
        """With --locked the locks are what is offered: its own, and those of what it is built from."""
        paths = [entry.path, *(one.path for one in self.catalogue.below(entry.name))]
        return " ".join(str(digest_file(lock_path(path))) if lock_path(path).exists() else "none" for path in paths)

    def _public(self, path: Path) -> VerifyingKey:
        if self._key is None:
            self._key = load_verifying_key(path, password_of(self.making), progress=self.workshop.progress)
        return self._key

    def _tested_with(self) -> str:
        if not self._runtime:
            self._runtime = str(find_runtime(self.workshop.runtime))
        return self._runtime

    def _offer(self, entry: Entry, product: Product) -> Offer:
        """Return the platform as it is tonight, read once.

        Raises what reading it raises, for each product anew.
        """
        name = (product.platform, product.arch)
        if name not in self._offers:
            assert entry.recipe is not None
            offer = Offer(choose_platform(entry.recipe, self._order(entry)), product.arch)
            self._offers[name] = offer
            try:
                self._read(offer)
            except RelbuildError as error:
                offer.error = error
        offer = self._offers[name]
        if offer.error is not None:
            raise offer.error
        return offer

    def _read(self, offer: Offer) -> None:
        workshop = self.workshop
        offer.keys = load_keys(
            offer.platform,
            offer.arch,
            variables=workshop.environment,
            store=workshop.store,
            offline=workshop.offline,
        )
        if not self.making.locked:
            offer.repositories = open_repositories(
                offer.platform,
                offer.arch,
                variables=workshop.environment,
                store=workshop.store,
                offline=workshop.offline,
                progress=workshop.progress,
            )

    def _resolved(self, entry: Entry, recipe: Recipe, offer: Offer, standing: Standing | None) -> str:
        """Return the lock of tonight, as text.

        It is resolved anew with the account numbers that were, or the committed one.
        """
        now = inputs(recipe, offer.platform, offer.arch, offer.keys)
        path = lock_path(entry.path)
        lock = read_lock(path)
        committed = lock.section(offer.platform.name, offer.arch) if lock else None
        if self.making.locked:
            why = stale(committed, now) if committed else ("no lock",)
            decide(committed, why, Mode.LOCKED, path)
            assert committed is not None
            return format_lock(Lock(recipe.name, (committed,)))
        with task(self.workshop.progress, "resolve", recipe.name) as running:
            if offer.universe is None:
                offer.universe = open_universe(
                    offer.arch, offer.repositories, store=self.workshop.store, progress=self.workshop.progress
                )
            section = solve(
                recipe,
                offer.platform,
                offer.arch,
                offer.repositories,
                store=self.workshop.store,
                inputs=now,
                progress=self.workshop.progress,
                universe=offer.universe,
            )
            running.note(f"{len(section.resolution.chosen)} packages")
        before = _section(standing, offer) or committed
        if before is not None:
            section = replace(section, accounts=before.accounts)
        return format_lock(Lock(recipe.name, (section,)))

    # --- what stands on the mirror ----------------------------------------------------------------

    def _standing(self, product: Product) -> Standing | None:
        """Return the product as it is published on the mirror.

        It comes from the store's memory if the mirror still has it, else from what is attested there. None: nothing, or
        nothing that can be compared with.
        """
        if self.mirror is None:
            return None
        repository = self.mirror.repository(product.name)
        known = self._recalled(product.name)
        if known is not None and not _is_of(known, product):
            known = None
        if known is not None and repository.resolve(known.immutable) == known.digest:
            self.remembered[product.name] = known
            return known
        try:
            return self._attested(repository, product)
        except (UsageError, VerificationError) as error:
            self._warn(f"the attestations of '{product.name}' cannot be read, so it is rebuilt: {error}")
            return None

    def _attested(self, repository: Repository, product: Product) -> Standing | None:
        last = self.last(product.name)
        digest = last.published.digest if last else None
        reference = digest or repository.resolve("latest")
        if reference is None or self.making.key is None:
            return None
        held = read_held(repository, reference)
        if len(held.images) != 1:
            return None
        require_identity(repository, held.manifest, self._public(self.making.key))
        if digest is None:  # an older image of the product would be taken for the newest
            key, now = self._public(self.making.key), int(self.workshop.clock() * 1000)
            check_tag(repository, "latest", reference, key, (repository.identity,), now=now, allow_stale=True)
        record = attested_record(repository, held.digest, self._public(self.making.key), self._warn)
        immutable = immutable_tag(held.version, held.created, held.digest)
        if record is None or repository.resolve(immutable) != held.digest:
            return None
        known = last if last and last.published.digest == held.digest else product
        tags = tuple(tag for tag in floating_tags(held.version) if repository.resolve(tag) == held.digest)
        published = replace(known.published, version=held.version, tags=tags)
        return Standing(record, held.digest, immutable, replace(known, published=published))


def _why(standing: Standing | None, changed: frozenset[str]) -> str:
    if standing is None:
        return "not published yet"
    return f"{in_words(sorted(changed))} changed" if changed else "requested"


def _only_tests(job: Job, standing: Standing, changed: frozenset[str], nothing: str) -> Decision:
    """Decide about a product whose image would be the same.

    Test it again if its checks are others, else `nothing`.
    """
    if changed:
        again = replace(job, test_only=True, why=f"{in_words(sorted(changed))} changed")
        return Decision(job.product, again, standing)
    if standing.record.facts != job.facts:
        standing = replace(standing, record=replace(standing.record, facts=job.facts))
    return Decision(replace(job.product, run=replace(job.product.run, why=nothing)), None, standing)


def _is_of(standing: Standing, product: Product) -> bool:
    known = standing.product
    return known is not None and (known.platform, known.arch) == (product.platform, product.arch)


def _section(standing: Standing | None, offer: Offer) -> LockSection | None:
    if standing is None or not standing.record.lock:
        return None
    return parse_lock(standing.record.lock, "the lock on the mirror").section(offer.platform.name, offer.arch)


DESCRIPTION = "org.opencontainers.image.description"


def _as_it_stands(product: Product, standing: Standing) -> Product:
    """The product of tonight with all that is known of the image that stands there."""
    known = (standing.product or product).published
    return replace(product, published=replace(known, digest=standing.digest, immutable=standing.immutable))
