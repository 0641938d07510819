"""The narrative of a night: plan a catalogue, run jobs in order of parents, record results.

A catalogue is planned; changed products are built, tested and published, parents before children; the outcome of each
is recorded. Start reading at `nightly`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Mirror
from pipeline.model.absolute_path import AbsolutePath, absolute
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.night_record import (
    ExcludedWorker,
    Failure,
    NightlyRun,
    Outcome,
    Product,
    Stage,
)
from pipeline.nightly.catalogue import (
    Catalogue,
    CatalogueEntry,
    ProductSelection,
    load_catalogue,
    select_products,
)
from pipeline.nightly.executors.executor_protocol import Executor, Requirements, TaskResult
from pipeline.nightly.executors.task_inputs import task_files
from pipeline.nightly.inputs_record import PublishedProduct, remember_published
from pipeline.nightly.job import Job, JobResult, RunSettings
from pipeline.nightly.job_failure import command_for, failed_product
from pipeline.nightly.job_result_check import require_published, require_same_product
from pipeline.nightly.member_tasks import MemberTasks, task_product
from pipeline.nightly.night_planner import Planner
from pipeline.nightly.no_change import RUN_BYTES
from pipeline.nightly.product_order import order_by_longest_path
from pipeline.nightly.published_products import PublishedProducts
from pipeline.nightly.renewal import renew_tags
from pipeline.nightly.security_fixes import read_bulletins, with_security_fixes
from pipeline.nightly.typed_paths import TypedPaths
from pipeline.prepare import BuildEnvironment
from pipeline.recipes import PlatformTarget
from pipeline.release.current_images import mirror_access
from pipeline.resolve import lock_path, parse_lock, put_sections

ANY_NAME = "any"
"""A name of a product that need not be there, to ask by which host and namespace products are pulled."""

_WORKER_LOST_HINT = "check its log and the kernel log (out of memory?); its remains are removed at the next start"


@dataclass(frozen=True, slots=True)
class NightOptions:
    """The settings of a night: the catalogue, the products to take, and how they are made.

    The catalogue is given by its folders or recipes. `write_locks`: write the new locks beside the recipes.
    `destination` is the mirror as it was typed, and `typed` are paths, because pages must not show this machine's
    absolute ones.
    """

    catalogue: tuple[Path, ...]
    settings: RunSettings
    wanted: ProductSelection = ProductSelection()
    write_locks: bool = False
    destination: str = ""
    typed: TypedPaths | None = None


@dataclass(frozen=True, slots=True)
class PlannedProduct:
    """The action that a night would take for a product.

    `action` is `build`, `test`, `nothing`, `failed`, `resolve` where a worker must resolve to find changes, or
    `after NAME` where it depends on the parent.
    """

    product: Product
    action: str


@dataclass(frozen=True, slots=True)
class NightResult:
    """The record of a night, and its planner, which knows what was read."""

    night: NightlyRun
    planner: Planner


def nightly(
    options: NightOptions,
    build_env: BuildEnvironment,
    open_executor: Callable[[], Executor],
    previous: Mapping[str, Product],
) -> NightResult:
    """Plan, build, test and publish a catalogue.

    `open_executor` is called when there is a job; `previous` are the last night's products. Failures are in the night's
    record, and block only the failed product's descendants.
    """
    began = build_env.clock()
    with _mirror(options, build_env, create=True) as mirror:
        planner = plan_catalogue(options, build_env, mirror, previous)
        catalogue_run = _CatalogueRun(options, planner.catalogue, planner, build_env, open_executor)
        products = catalogue_run.run()
        known_as = mirror.repository(ANY_NAME).identity.removesuffix(f"/{ANY_NAME}") if mirror else ""
        read_bulletins(planner.platform_states, build_env)
        products = tuple(
            with_security_fixes(product, planner.states_of(product), catalogue_run.before) for product in products
        )
        products = tuple(map(options.typed.told, products)) if options.typed else products
        catalogue_run.remember(products)
        renew_tags(products, options.settings, mirror, build_env)
    night = NightlyRun(
        began=int(began * 1000),
        ended=int(build_env.clock() * 1000),
        catalogue=" ".join(str(place) for place in options.catalogue),
        destination=options.destination or str(options.settings.to),
        known_as=options.settings.known_as or known_as,
        products=products,
        repositories=planner.states,
        set_aside=catalogue_run.set_aside,
        run=secrets.token_hex(RUN_BYTES),
    )
    return NightResult(night, planner)


def plan_catalogue(
    options: NightOptions, build_env: BuildEnvironment, mirror: Mirror | None, previous: Mapping[str, Product]
) -> Planner:
    """Read the catalogue and select the wanted products.

    It is the first step of a night and of `--plan`.
    """
    target = PlatformTarget(options.settings.repositories, options.settings.platform)
    published = PublishedProducts(options.settings, build_env, mirror, previous)
    planner = Planner(load_catalogue(options.catalogue, target), options.settings, build_env, published)
    for path in planner.catalogue.left_out:
        build_env.progress.warn(f"'{path}' is not part of the catalogue, whose recipes end in .yaml: rename it")
    planner.catalogue = select_products(planner.catalogue, options.wanted, planner.packages)
    return planner


def plan_night(
    options: NightOptions, build_env: BuildEnvironment, previous: Mapping[str, Product]
) -> tuple[PlannedProduct, ...]:
    """Return a night's decision on each product, in order, without running it.

    Nothing is built and nothing published.
    """
    with _mirror(options, build_env, create=False) as mirror:
        planner = plan_catalogue(options, build_env, mirror, previous)
        planned: dict[str, PlannedProduct] = {}
        locks: dict[str, str] = {}
        for entry in planner.catalogue.entries:
            planned[entry.name] = _planned(entry, planner, planned, locks)
        return tuple(planned.values())


def _planned(
    entry: CatalogueEntry, planner: Planner, planned: Mapping[str, PlannedProduct], locks: dict[str, str]
) -> PlannedProduct:
    product = None
    try:
        product = planner.plan(entry)
        below = planned.get(entry.parent)
        if below is not None and below.action == "failed":
            known = planner.as_known(entry, product)
            return PlannedProduct(_blocked(known, below.product, planner.settings), "failed")
        if below is not None and below.action != "nothing":
            why = f"its parent '{entry.parent}' is rebuilt"
            return PlannedProduct(_with_run(product, product.run.outcome, why), f"after {entry.parent}")
        decision = planner.decide(entry, product, below.product if below else None, locks)
    except RelbuildError as error:
        return PlannedProduct(failed_product(planner.as_known(entry, product), error, planner.settings), "failed")
    if decision.job is None:
        if decision.on_mirror is not None:
            locks[entry.name] = decision.on_mirror.record.lock
        return PlannedProduct(decision.product, "nothing")
    locks.update(dict(decision.job.locks))
    action = "test" if decision.job.test_only else "resolve" if decision.job.may_be_same else "build"
    return PlannedProduct(_with_run(decision.product, decision.product.run.outcome, decision.job.why), action)


@contextlib.contextmanager
def _mirror(options: NightOptions, build_env: BuildEnvironment, *, create: bool) -> Iterator[Mirror | None]:
    to = options.settings.to
    if not create and not to.form.exists(to):
        yield None
        return
    with mirror_access(build_env).mirror(to, create=create, name=options.settings.known_as) as mirror:
        yield mirror


@dataclass(slots=True)
class _CatalogueRun:
    """The state of a running night.

    `before` are the formerly published products of those that are built again.
    """

    options: NightOptions
    catalogue: Catalogue
    planner: Planner
    build_env: BuildEnvironment
    open_executor: Callable[[], Executor]
    before: dict[str, Product] = field(default_factory=dict)
    _done: dict[str, Product] = field(default_factory=dict)
    _locks: dict[str, str] = field(default_factory=dict)
    _jobs: dict[str, Job] = field(default_factory=dict)
    _members: dict[str, MemberTasks] = field(default_factory=dict)
    _kept: dict[str, PublishedProduct] = field(default_factory=dict)
    _executor: Executor | None = None

    def run(self) -> tuple[Product, ...]:
        """Decide on and run all products; return them in the catalogue's order."""
        waiting = order_by_longest_path(self.catalogue, self._times())
        ready: list[Job] = []
        try:
            while waiting or ready or self._jobs:
                entry = self._next(waiting)
                if entry is not None:
                    waiting.remove(entry)
                    job = self._decide(entry)
                    ready += [job] if job else []
                self._start(ready)
                if entry is None and self._jobs:
                    ended = self._opened_executor().next_result()
                    if ended is not None:
                        self._take(ended)
        finally:
            if self._executor is not None:
                self._executor.close()
        return tuple(self._done[entry.name] for entry in self.catalogue.entries)

    def _times(self) -> dict[str, int]:
        """Return the milliseconds that products took when they were built last."""
        known = ((entry.name, self.planner.published.previous.get(entry.name)) for entry in self.catalogue.entries)
        return {name: one.published.build_took for name, one in known if one is not None and one.published.build_took}

    def remember(self, products: Sequence[Product]) -> None:
        """Remember the final records of products in the store."""
        for product in products:
            kept = self._kept.get(product.name)
            if kept is not None and kept.product != product:
                remember_published(
                    self.build_env.store, str(self.options.settings.to), product, replace(kept, product=product)
                )

    @property
    def set_aside(self) -> tuple[ExcludedWorker, ...]:
        """The workers that got no more tasks."""
        return self._executor.set_aside if self._executor else ()

    def _opened_executor(self) -> Executor:
        if self._executor is None:
            self._executor = self.open_executor()
        return self._executor

    def _next(self, waiting: list[CatalogueEntry]) -> CatalogueEntry | None:
        """Return the first product whose parent, and products that share its layers, are done."""
        names = {entry.name for entry in self.catalogue.entries}

        def ready(entry: CatalogueEntry) -> bool:
            needed = {entry.parent, *(one.name for one in self.catalogue.followed(entry))} & names
            return needed <= self._done.keys()

        return next((entry for entry in waiting if ready(entry)), None)

    def _decide(self, entry: CatalogueEntry) -> Job | None:
        product = None
        try:
            product = self.planner.plan(entry)
            parent = self._done.get(entry.parent)
            if parent is not None and parent.run.outcome in (Outcome.FAILED, Outcome.BLOCKED):
                known = self.planner.as_known(entry, product)
                self._done[entry.name] = _blocked(known, parent, self.options.settings)
                return None
            decision = self.planner.decide(entry, product, parent, self._locks)
        except RelbuildError as error:
            known = self.planner.as_known(entry, product)
            self._done[entry.name] = failed_product(known, error, self.options.settings)
            return None
        if decision.job is None:
            self._settle(entry.name, JobResult(decision.product, decision.on_mirror))
            return None
        if decision.on_mirror is not None and decision.on_mirror.product is not None:
            self.before[entry.name] = decision.on_mirror.product
        return decision.job

    def _start(self, ready: list[Job]) -> None:
        while ready and len(self._jobs) < self._opened_executor().size:
            job = ready.pop(0)
            name, needed = job.product.name, Requirements("", memory=self._memory(job), files=self._files(job))
            self._jobs[name] = job
            if len(job.product.architectures) > 1 and self._opened_executor().several_machines:
                self._members[name] = MemberTasks(job)
                for task_name, part in self._members[name].tasks():
                    needed = replace(needed, arch=part.architecture)
                    self._begin(task_name, part, needed)
            else:
                needed = replace(needed, arch=job.product.architectures[0])
                self._begin(name, job, needed)

    def _begin(self, name: str, job: Job, needed: Requirements) -> None:
        from pipeline.nightly.product_job import run_job  # What builds and publishes is loaded when something is due.

        self._opened_executor().start(name, run_job, job, needed)

    def _memory(self, job: Job) -> int:
        """Return the bytes that the instances of its image may use together when it is tested."""
        entry = self.catalogue.find(job.product.name)
        assert entry is not None
        assert entry.recipe is not None
        return entry.recipe.smoke.instances * (entry.recipe.smoke.limits[MEMORY] or 0)

    def _files(self, job: Job) -> tuple[AbsolutePath, ...]:
        """Return the local files that a job reads."""
        entry = self.catalogue.find(job.product.name)
        assert entry is not None and entry.recipe is not None
        key = (job.settings.key,) if job.settings.key else ()
        named = {path: None for state in self.planner.platform_states for path in state.platform.files}
        return (job.settings.repositories, *key, *map(absolute, (*named, *task_files(entry.recipe))))

    def _take(self, ended: TaskResult) -> None:
        name, arch = task_product(ended.name)
        if arch:
            joined = self._members[name].take(arch, ended)
            if isinstance(joined, Job):
                needed = Requirements("", containers=False, files=self._files(joined))
                self._begin(name, joined, needed)
            if not isinstance(joined, TaskResult):
                return
            ended = joined
        job = self._jobs.pop(ended.name)
        if isinstance(ended.result, JobResult):
            product = _tried(ended.result.product, ended.tried)
            product = replace(product, run=replace(product.run, worker=ended.worker))
            if not arch and name in self._members:
                product = self._members[name].completed(product)
            self._settle(ended.name, self._confirmed(job, replace(ended.result, product=product)))
            return
        failure = Failure(
            Stage.WORKER,
            "no-worker" if ended.hint else "worker-lost",
            ended.lost or "the worker returned no result",
            hint=ended.hint or _WORKER_LOST_HINT,
            command=command_for(job.product, self.options.settings),
        )
        self._done[ended.name] = _with_run(job.product, Outcome.FAILED, failure.message, failure)

    def _confirmed(self, job: Job, job_result: JobResult) -> JobResult:
        """Check a worker's report against the mirror itself; return it, or the failure."""
        assert self.planner.published.mirror is not None
        try:
            require_same_product(job_result.product, job.product)
            require_published(job_result.product, self.planner.published.mirror, str(self.options.settings.to))
        except RelbuildError as error:
            run = replace(job.product.run, worker=job_result.product.run.worker, took=job_result.product.run.took)
            before = replace(job.product, run=run)
            return JobResult(failed_product(before, error, self.options.settings), None)
        return job_result

    def _settle(self, name: str, job_result: JobResult) -> None:
        """Record a finished product, and remember it for the next night."""
        self._done[name] = job_result.product
        if job_result.on_mirror is None:
            return
        self._locks[name] = job_result.lock or job_result.on_mirror.record.lock
        if job_result.on_mirror is not self.planner.published.remembered.get(name):
            self._kept[name] = replace(job_result.on_mirror, product=job_result.product)
            remember_published(
                self.build_env.store, str(self.options.settings.to), job_result.product, self._kept[name]
            )
        if self.options.write_locks:
            self._write_lock(name)

    def _write_lock(self, name: str) -> None:
        """Write tonight's section into the lock beside the recipe, if it differs."""
        entry = self.catalogue.find(name)
        assert entry is not None
        path = lock_path(entry.path)
        put_sections(path, parse_lock(self._locks[name], name))


def _tried(product: Product, workers: Sequence[str]) -> Product:
    """Return a product that failed for what machines lack, with the names of the workers."""
    if product.run.failure is None or len(workers) < 2:
        return product
    hint = f"{product.run.failure.hint}; it failed on {', '.join(workers)}".removeprefix("; ")
    return replace(product, run=replace(product.run, failure=replace(product.run.failure, hint=hint)))


def _blocked(product: Product, parent: Product, settings: RunSettings) -> Product:
    why = f"its parent '{parent.name}' failed"
    failure = Failure(
        Stage.PARENT,
        "parent-failed",
        why,
        place=product.recipe,
        hint=f"fix '{parent.name}' first: {parent.run.why}",
        command=parent.run.failure.command if parent.run.failure else command_for(parent, settings),
    )
    return _with_run(product, Outcome.BLOCKED, why, failure)


def _with_run(product: Product, outcome: Outcome, why: str, failure: Failure | None = None) -> Product:
    return replace(product, run=replace(product.run, outcome=outcome, why=why, failure=failure))
