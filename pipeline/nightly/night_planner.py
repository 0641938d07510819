"""Decide for each product of a night: unchanged, or a job to test or build it.

If no input of image and tests changed, nothing is done; else there is a job. A platform's repositories are opened once
and shared by all recipes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace

from pipeline.digest import digest_file
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.absolute_path import absolute
from pipeline.model.lock import Lock, LockSection
from pipeline.model.night_record import (
    Outcome,
    Product,
    ProductRun,
    RepositoryState,
)
from pipeline.model.recipe import Recipe
from pipeline.nightly.catalogue import Catalogue, CatalogueEntry, has_auto_layers
from pipeline.nightly.inputs import (
    KEY_INPUT,
    REPOSITORIES_INPUT,
    TEST_INPUTS,
    changed_inputs,
    emulator_inputs,
    image_inputs,
    in_words,
    platform_inputs,
    templates_digest,
    test_inputs,
)
from pipeline.nightly.inputs_record import PublishedProduct
from pipeline.nightly.job import Job, RunSettings
from pipeline.nightly.lock_comparison import same_packages
from pipeline.nightly.no_change import NOTHING_CHANGED
from pipeline.nightly.platform_state import PlatformState
from pipeline.nightly.product_result import why_built
from pipeline.nightly.published_parent import parent_digests
from pipeline.nightly.published_products import PublishedProducts
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.prepare.locked_recipe import choose_architecture, choose_platform
from pipeline.progress import task
from pipeline.resolve import (
    LockMode,
    decide_action,
    format_lock,
    lock_path,
    parse_lock,
    read_lock,
    resolution_inputs,
    solve,
    stale_reasons,
)
from pipeline.sandbox import find_runtime


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about a product: `job` if something is to be done.

    Else `product` as it stands, and `on_mirror` to be remembered of it.
    """

    product: Product
    job: Job | None = None
    on_mirror: PublishedProduct | None = None


@dataclass(slots=True)
class Planner:
    """The planner of a night, which decides about one product after the other."""

    catalogue: Catalogue
    settings: RunSettings
    build_env: BuildEnvironment
    published: PublishedProducts
    _platform_states: dict[tuple[str, tuple[str, ...], str], PlatformState] = field(default_factory=dict)
    _runtime: str = ""

    @property
    def platform_states(self) -> tuple[PlatformState, ...]:
        """The platforms that were looked at."""
        return tuple(self._platform_states.values())

    @property
    def states(self) -> tuple[RepositoryState, ...]:
        """The states of the repositories that were looked at, as they offered them."""
        every = (one for state in self._platform_states.values() for one in state.repository_states)
        # A platform's own repositories are looked at once more with each set of add-ons.
        return tuple({(one.platform, one.arch, one.repository): one for one in every}.values())

    def states_of(self, product: Product) -> tuple[PlatformState, ...]:
        """Return the states of a product's platform, with its add-ons, that were looked at."""
        entry = self.catalogue.find(product.name)
        wanted = (product.platform, entry.recipe.add_ons if entry and entry.recipe else ())
        return tuple(state for name, state in self._platform_states.items() if name[:2] == wanted)

    def plan(self, entry: CatalogueEntry) -> Product:
        """Return the product as it stands before anything is done.

        Raises RelbuildError if the recipe is wrong, or its platform cannot be used.
        """
        if entry.recipe is None:
            assert entry.error is not None
            raise entry.error
        options = self._build_options(entry)
        platform = choose_platform(entry.recipe, options)
        architectures = tuple(dict.fromkeys(options.architectures or entry.recipe.architectures))
        for arch in architectures:
            choose_architecture(entry.recipe, platform, replace(options, architectures=(arch,)))
        return Product(
            entry.name,
            str(entry.path),
            platform.name,
            ",".join(architectures),
            ProductRun(Outcome.UNCHANGED, "", began=int(self.build_env.clock() * 1000)),
            labels=entry.recipe.image.labels,
            description=dict(entry.recipe.image.labels).get(_DESCRIPTION_LABEL, ""),
            end_of_life=entry.recipe.end_of_life,
            parent=entry.parent,
        )

    def packages(self, entry: CatalogueEntry) -> Collection[str] | None:
        """Return the names of the packages of an entry's image, None if nobody knows.

        They are those of the last night's record, else of its lock and its ancestors' locks.
        """
        known = self.published.last(entry.name)
        if known is not None and known.published.packages:
            return {package.name for package in known.published.packages}
        names: set[str] = set()
        for path in (entry.path, *(one.path for one in self.catalogue.below(entry.name))):
            lock = read_lock(lock_path(path))
            if lock is None:
                return None
            names |= {one.package.nevra.name for section in lock.sections for one in section.resolution.chosen}
        return names

    def as_known(self, entry: CatalogueEntry, product: Product | None) -> Product:
        """Return a product for which nothing can be done, with what is known of it.

        What is known is what stands there. `product` is None where not even its platform is known.
        """
        last = self.published.last(entry.name)
        if product is None:
            run = ProductRun(Outcome.FAILED, "")
            return replace(last, run=run) if last else Product(entry.name, str(entry.path), "", "", run)
        if last is None or (last.platform, last.arch) != (product.platform, product.arch):
            return product
        return replace(product, published=last.published)

    def decide(
        self, entry: CatalogueEntry, product: Product, parent: Product | None, locks: Mapping[str, str]
    ) -> Decision:
        """Decide what is to be done about a product.

        `parent` is what became tonight of what it is built from, `locks` the texts of the locks of all that was decided
        before. Raises RelbuildError; PublicationRefused `tag-unreadable` where an image is to be published under a tag
        that cannot be read.
        """
        decision = self._decision(entry, product, parent, locks)
        if decision.job is not None and not decision.job.test_only:
            self.published.require_readable(product)
        return decision

    def _decision(
        self, entry: CatalogueEntry, product: Product, parent: Product | None, locks: Mapping[str, str]
    ) -> Decision:
        recipe = entry.recipe
        assert recipe is not None
        states = tuple(self._platform_state(entry, product, arch) for arch in product.architectures)
        facts = self._facts(entry, recipe, states, parent)
        on_mirror = self.published.find(product)
        changed: frozenset[str] = frozenset()
        if on_mirror is not None:
            facts["templates"] = templates_digest(recipe, on_mirror.record.templates)
            if self.settings.key is None:
                facts[KEY_INPUT] = on_mirror.record.inputs.get(KEY_INPUT, "")
            product = _as_it_stands(product, on_mirror)
            changed = frozenset(changed_inputs(on_mirror.record.inputs, facts))
        # A child needs its parent's packages, and `auto` layers need the packages' changelogs; the members of an index
        # are resolved where they are built.
        on_worker = len(states) > 1 or bool(entry.parent) or (not self.settings.locked and has_auto_layers(recipe))
        job = Job(
            product=product,
            recipe=absolute(entry.path),
            settings=self.settings,
            facts=tuple(sorted(facts.items())),
            locks=self._locks(entry, on_mirror, locks),
            why=self._why(product, on_mirror, changed),
            on_mirror=on_mirror,
            resolve=on_worker,
        )
        if (
            on_mirror is not None
            and REPOSITORIES_INPUT not in changed
            and changed <= TEST_INPUTS
            and not self.settings.retest
        ):
            return self._on_parent(_only_tests(job, on_mirror, changed, NOTHING_CHANGED), parent)
        if on_worker:
            return self._on_parent(Decision(product, job, on_mirror), parent)
        text = self._resolved(entry, recipe, states[0], on_mirror)
        job = replace(job, locks=((entry.name, text),), why=why_built(job, text))
        if on_mirror is not None and same_packages(on_mirror.record.lock, text) and not self.settings.retest:
            changed -= {REPOSITORIES_INPUT}
            if changed <= TEST_INPUTS:
                return _only_tests(job, on_mirror, changed, "the repositories changed, this product's packages did not")
        return Decision(product, job, on_mirror)

    def _on_parent(self, decision: Decision, parent: Product | None) -> Decision:
        """Return the decision with the parent's images in its job, unless that only tests."""
        if decision.job is None or decision.job.test_only:
            return decision
        return replace(decision, job=replace(decision.job, parents=parent_digests(parent, self.published.mirror)))

    def _locks(
        self, entry: CatalogueEntry, on_mirror: PublishedProduct | None, locks: Mapping[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """Return the locks from which account numbers and groups of packages are kept.

        They are those of what a product is built from and whose layers it shares, and its own former one.
        """
        below = [(one.name, locks[one.name]) for one in self.catalogue.below(entry.name) if locks.get(one.name)]
        shared = [(one.path.stem, locks[one.name]) for one in self.catalogue.followed(entry) if locks.get(one.name)]
        return (*shared, *([(entry.name, on_mirror.record.lock)] if on_mirror else []), *below)

    # --- inputs -----------------------------------------------------------------------------------

    def _build_options(self, entry: CatalogueEntry) -> BuildOptions:
        settings = self.settings
        return BuildOptions(
            recipe=entry.path,
            repositories=settings.repositories,
            platform=settings.platform,
            architectures=settings.architectures,
        )

    def _facts(
        self, entry: CatalogueEntry, recipe: Recipe, states: Sequence[PlatformState], parent: Product | None
    ) -> dict[str, str]:
        given = [dict(resolution_inputs(recipe, one.platform, one.arch, one.keys)) for one in states]

        def of_each(digests: Iterable[object]) -> str:
            return " ".join(map(str, digests))

        return {
            **image_inputs(recipe, self.settings.compression, self.settings.fingerprint),
            **platform_inputs(states[0].platform),
            **test_inputs(recipe, self._tested_with(), full=self.settings.full),
            **emulator_inputs(one.arch for one in states),
            "repositories": of_each(one["repositories"] for one in given),
            "keys": of_each(one["keys"] for one in given),
            "parent": str(parent.published.digest) if parent else "none",
            "templates": "none",
            REPOSITORIES_INPUT: self._lock_digests(entry)
            if self.settings.locked
            else of_each(one.digest for one in states),
        }

    def _lock_digests(self, entry: CatalogueEntry) -> str:
        """Return the digest of its lock and its ancestors' locks, which --locked builds from."""
        paths = [entry.path, *(one.path for one in self.catalogue.below(entry.name))]
        return " ".join(str(digest_file(lock_path(path))) if lock_path(path).exists() else "none" for path in paths)

    def _tested_with(self) -> str:
        if not self._runtime:
            self._runtime = str(find_runtime(self.build_env.runtime))
        return self._runtime

    def _platform_state(self, entry: CatalogueEntry, product: Product, arch: str) -> PlatformState:
        """Return the platform as it is tonight for one of the product's architectures, read once.

        Raises what reading it raises, for each product anew.
        """
        assert entry.recipe is not None
        name = (product.platform, entry.recipe.add_ons, arch)
        if name not in self._platform_states:
            platform_state = PlatformState(choose_platform(entry.recipe, self._build_options(entry)), arch)
            self._platform_states[name] = platform_state
            try:
                platform_state.read_keys(self.build_env)
                if not self.settings.locked:
                    platform_state.open_repositories(self.build_env)
            except RelbuildError as error:
                platform_state.error = error
        platform_state = self._platform_states[name]
        if platform_state.error is not None:
            raise platform_state.error
        return platform_state

    def _resolved(
        self, entry: CatalogueEntry, recipe: Recipe, platform_state: PlatformState, on_mirror: PublishedProduct | None
    ) -> str:
        """Return the lock of tonight, as text.

        It is resolved anew with the account numbers that were, or the committed one.
        """
        now = resolution_inputs(recipe, platform_state.platform, platform_state.arch, platform_state.keys)
        path = lock_path(entry.path)
        lock = read_lock(path)
        committed = lock.section(platform_state.platform.name, platform_state.arch) if lock else None
        if self.settings.locked:
            why = stale_reasons(committed, now, recipe) if committed else ("no lock",)
            decide_action(committed, why, LockMode.LOCKED, path)
            assert committed is not None
            return format_lock(Lock(recipe.name, (committed,)))
        with task(self.build_env.progress, "resolve", recipe.name) as running:
            package_pool = platform_state.package_pool(self.build_env)
            section = solve(
                recipe,
                platform_state.platform,
                platform_state.arch,
                platform_state.repositories,
                store=self.build_env.store,
                inputs=now,
                progress=self.build_env.progress,
                package_pool=package_pool,
            )
            running.note(f"{len(section.resolution.chosen)} packages")
        before = _section(on_mirror, platform_state) or committed
        if before is not None:
            section = replace(section, accounts=before.accounts)
        return format_lock(Lock(recipe.name, (section,)))

    def _why(self, product: Product, on_mirror: PublishedProduct | None, changed: frozenset[str]) -> str:
        if on_mirror is not None:
            return f"{in_words(sorted(changed))} changed" if changed else "requested"
        if not self.published.has_latest(product):
            return "not published yet"
        # For example one that was published by hand, or for another platform; without a key none is verified.
        return _UNVERIFIED if self.settings.key is not None else _NO_KEY


_NO_KEY = "without --key it cannot be verified what the published image was made from"
_UNVERIFIED = "the published image has no record of a night that could be verified"


def _only_tests(job: Job, on_mirror: PublishedProduct, changed: frozenset[str], nothing: str) -> Decision:
    """Decide about a product whose image would be the same.

    Test it again if its checks are others, else `nothing`.
    """
    if changed:
        # An index is tested where its members are built, which the same inputs give again.
        alone = len(job.product.architectures) == 1
        again = replace(job, test_only=alone, why=f"{in_words(sorted(changed))} changed")
        return Decision(job.product, again, on_mirror)
    if on_mirror.record.facts != job.facts:
        on_mirror = replace(on_mirror, record=replace(on_mirror.record, facts=job.facts))
    return Decision(replace(job.product, run=replace(job.product.run, why=nothing)), None, on_mirror)


def _section(on_mirror: PublishedProduct | None, platform_state: PlatformState) -> LockSection | None:
    if on_mirror is None or not on_mirror.record.lock:
        return None
    return parse_lock(on_mirror.record.lock, "the lock on the mirror").section(
        platform_state.platform.name, platform_state.arch
    )


_DESCRIPTION_LABEL = "org.opencontainers.image.description"


def _as_it_stands(product: Product, on_mirror: PublishedProduct) -> Product:
    """Return a product with all that is known of its published image."""
    known = (on_mirror.product or product).published
    return replace(product, published=replace(known, digest=on_mirror.digest, immutable=on_mirror.immutable))
