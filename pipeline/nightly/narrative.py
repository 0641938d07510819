"""The run of a night over a catalogue. Start reading at `nightly`.

A catalogue is planned, what changed is built, tested and published in the order in which it is built from one another,
and what became of all of it is told.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import RelbuildError
from pipeline.gather import Workshop
from pipeline.mirror.protocol import Mirror
from pipeline.model.absolute_path import AbsolutePath, absolute
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.lock import Lock
from pipeline.model.night import Failure, Night, Outcome, Product, SetAside, Stage
from pipeline.nightly.auditing import audited, read_bulletins
from pipeline.nightly.catalogue import Catalogue, Entry, Wanted, load_catalogue, select
from pipeline.nightly.confirming import demand_published, demand_same
from pipeline.nightly.crew import Crew, Ended, Needs
from pipeline.nightly.luggage import files_of_recipe
from pipeline.nightly.planning import Planner
from pipeline.nightly.quiet import RUN_BYTES
from pipeline.nightly.record import Standing, remember
from pipeline.nightly.renewal import renew_tags
from pipeline.nightly.working import Job, Making, Worked, command_for, failed, work
from pipeline.release.current import mirror_access
from pipeline.resolve import lock_path, parse_lock, read_lock, write_lock

ANY_NAME = "any"
"""A name of a product that need not be there, to ask by which host and namespace products are pulled."""


@dataclass(frozen=True, slots=True)
class NightOrder:
    """The settings of a night: the catalogue, the products to take, and how they are made.

    The catalogue is given by its folders or recipes. `write_locks`: put the locks of tonight beside the recipes.
    `destination` is the mirror as it was typed: everybody reads the pages, and where a relative path begins is this
    machine's business.
    """

    catalogue: tuple[Path, ...]
    making: Making
    wanted: Wanted = Wanted()
    write_locks: bool = False
    destination: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """The action that a night would take for a product.

    `action` is `build`, `test`, `nothing`, `failed`, `resolve` where a worker has to look whether anything changed, or
    `after NAME` where that depends on what it is built from.
    """

    product: Product
    action: str


@dataclass(frozen=True, slots=True)
class Done:
    """A night, and who planned it: who knows what it read."""

    night: Night
    planner: Planner


def nightly(order: NightOrder, workshop: Workshop, crew_of: Callable[[], Crew], former: Mapping[str, Product]) -> Done:
    """Plan, build, test and publish a catalogue.

    `crew_of` calls the crew when there is something to do; `former` is what the last night said of each product. What
    fails is told in the night, and keeps only what is built from it.
    """
    began = workshop.clock()
    with _mirror(order, workshop, create=True) as mirror:
        planner = plan_catalogue(order, workshop, mirror, former)
        shift = _Shift(order, planner.catalogue, planner, workshop, crew_of)
        products = shift.run()
        known_as = mirror.repository(ANY_NAME).identity.removesuffix(f"/{ANY_NAME}") if mirror else ""
        read_bulletins(planner.offers, workshop)
        products = tuple(audited(product, planner.offers, shift.before) for product in products)
        shift.remember(products)
        renew_tags(products, order.making, mirror, workshop)
    night = Night(
        began=int(began * 1000),
        ended=int(workshop.clock() * 1000),
        catalogue=" ".join(str(place) for place in order.catalogue),
        destination=order.destination or str(order.making.to),
        known_as=order.making.known_as or known_as,
        products=products,
        repositories=planner.states,
        set_aside=shift.set_aside,
        run=secrets.token_hex(RUN_BYTES),
    )
    return Done(night, planner)


def plan_catalogue(
    order: NightOrder, workshop: Workshop, mirror: Mirror | None, former: Mapping[str, Product]
) -> Planner:
    """Read the catalogue and select the wanted products.

    Both a night and `--plan` begin so, and then decide about each product.
    """
    planner = Planner(load_catalogue(order.catalogue), order.making, workshop, mirror, former)
    planner.catalogue = select(planner.catalogue, order.wanted, planner.packages)
    return planner


def plan(order: NightOrder, workshop: Workshop, former: Mapping[str, Product]) -> tuple[Planned, ...]:
    """Return what a night would do, in the order in which it would.

    Nothing is built and nothing published.
    """
    with _mirror(order, workshop, create=False) as mirror:
        planner = plan_catalogue(order, workshop, mirror, former)
        planned: dict[str, Planned] = {}
        locks: dict[str, str] = {}
        for entry in planner.catalogue.entries:
            planned[entry.name] = _planned(entry, planner, planned, locks)
        return tuple(planned.values())


def _planned(entry: Entry, planner: Planner, planned: Mapping[str, Planned], locks: dict[str, str]) -> Planned:
    product = None
    try:
        product = planner.plan(entry)
        below = planned.get(entry.parent)
        if below is not None and below.action == "failed":
            return Planned(_with_run(product, Outcome.BLOCKED, f"'{entry.parent}' failed"), "failed")
        if below is not None and below.action != "nothing":
            why = f"its parent '{entry.parent}' is rebuilt"
            return Planned(_with_run(product, product.run.outcome, why), f"after {entry.parent}")
        decision = planner.decide(entry, product, below.product if below else None, locks)
    except RelbuildError as error:
        return Planned(failed(planner.as_known(entry, product), error, planner.making), "failed")
    if decision.job is None:
        if decision.standing is not None:
            locks[entry.name] = decision.standing.record.lock
        return Planned(decision.product, "nothing")
    locks.update(dict(decision.job.locks))
    action = "test" if decision.job.test_only else "resolve" if decision.job.may_be_same else "build"
    return Planned(_with_run(decision.product, decision.product.run.outcome, decision.job.why), action)


@contextlib.contextmanager
def _mirror(order: NightOrder, workshop: Workshop, *, create: bool) -> Iterator[Mirror | None]:
    to = order.making.to
    if not create and not to.form.exists(to):
        yield None
        return
    with mirror_access(workshop).mirror(to, create=create, name=order.making.known_as) as mirror:
        yield mirror


@dataclass(slots=True)
class _Shift:
    """The state of a night's work while it is under way.

    `before` is what stood on the mirror of what is made anew.
    """

    order: NightOrder
    catalogue: Catalogue
    planner: Planner
    workshop: Workshop
    crew_of: Callable[[], Crew]
    before: dict[str, Product] = field(default_factory=dict)
    _done: dict[str, Product] = field(default_factory=dict)
    _locks: dict[str, str] = field(default_factory=dict)
    _jobs: dict[str, Job] = field(default_factory=dict)
    _kept: dict[str, Standing] = field(default_factory=dict)
    _crew: Crew | None = None

    def run(self) -> tuple[Product, ...]:
        """All products, in the catalogue's order."""
        waiting = list(self.catalogue.entries)
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
                    self._take(self._called().next_ended())
        finally:
            if self._crew is not None:
                self._crew.close()
        return tuple(self._done[entry.name] for entry in self.catalogue.entries)

    def remember(self, products: Sequence[Product]) -> None:
        """Remember in the store what was found out about products after they were done with."""
        for product in products:
            kept = self._kept.get(product.name)
            if kept is not None and kept.product != product:
                remember(self.workshop.store, str(self.order.making.to), product, replace(kept, product=product))

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """The workers that got no more tasks."""
        return self._crew.set_aside if self._crew else ()

    def _called(self) -> Crew:
        if self._crew is None:
            self._crew = self.crew_of()
        return self._crew

    def _next(self, waiting: list[Entry]) -> Entry | None:
        """The first of which all is done with that it is built from or whose layers it shares."""
        names = {entry.name for entry in self.catalogue.entries}

        def ready(entry: Entry) -> bool:
            needed = {entry.parent, *(one.name for one in self.catalogue.followed(entry))} & names
            return needed <= self._done.keys()

        return next((entry for entry in waiting if ready(entry)), None)

    def _decide(self, entry: Entry) -> Job | None:
        product = None
        try:
            product = self.planner.plan(entry)
            parent = self._done.get(entry.parent)
            if parent is not None and parent.run.outcome in (Outcome.FAILED, Outcome.BLOCKED):
                known = self.planner.as_known(entry, product)
                self._done[entry.name] = _blocked(known, parent, self.order.making)
                return None
            decision = self.planner.decide(entry, product, parent, self._locks)
        except RelbuildError as error:
            known = self.planner.as_known(entry, product)
            self._done[entry.name] = failed(known, error, self.order.making)
            return None
        if decision.job is None:
            self._settle(entry.name, Worked(decision.product, decision.standing))
            return None
        if decision.standing is not None and decision.standing.product is not None:
            self.before[entry.name] = decision.standing.product
        return decision.job

    def _start(self, ready: list[Job]) -> None:
        while ready and len(self._jobs) < self._called().size:
            job = ready.pop(0)
            self._jobs[job.product.name] = job
            needs = Needs(job.product.arch, memory=self._memory(job), files=self._files(job))
            self._called().start(job.product.name, work, job, needs)

    def _memory(self, job: Job) -> int:
        """The bytes that the instances of its image may use together when it is tested."""
        entry = self.catalogue.find(job.product.name)
        assert entry is not None
        assert entry.recipe is not None
        return entry.recipe.smoke.instances * (entry.recipe.smoke.limits[MEMORY] or 0)

    def _files(self, job: Job) -> tuple[AbsolutePath, ...]:
        """The files of this machine that a job reads."""
        entry = self.catalogue.find(job.product.name)
        assert entry is not None and entry.recipe is not None
        key = (job.making.key,) if job.making.key else ()
        return (job.making.repositories, *key, *map(absolute, files_of_recipe(entry.recipe)))

    def _take(self, ended: Ended) -> None:
        job = self._jobs.pop(ended.name)
        if isinstance(ended.result, Worked):
            product = _tried(ended.result.product, ended.tried)
            product = replace(product, run=replace(product.run, worker=ended.worker))
            self._settle(ended.name, self._confirmed(job, replace(ended.result, product=product)))
            return
        failure = Failure(
            Stage.WORKER,
            "worker-lost",
            ended.lost or "the worker returned no result",
            hint="check its log and the kernel log (out of memory?); its remains are removed at the next start",
            command=command_for(job.product, self.order.making),
        )
        self._done[ended.name] = _with_run(job.product, Outcome.FAILED, failure.message, failure)

    def _confirmed(self, job: Job, worked: Worked) -> Worked:
        """Check a worker's report against the mirror itself; return it, or the failure."""
        assert self.planner.mirror is not None
        try:
            demand_same(worked.product, job.product)
            demand_published(worked.product, self.planner.mirror, str(self.order.making.to))
        except RelbuildError as error:
            run = replace(job.product.run, worker=worked.product.run.worker, took=worked.product.run.took)
            before = replace(job.product, run=run)
            return Worked(failed(before, error, self.order.making), None)
        return worked

    def _settle(self, name: str, worked: Worked) -> None:
        """A product is done with: keep what the next night needs."""
        self._done[name] = worked.product
        if worked.standing is None:
            return
        self._locks[name] = worked.lock or worked.standing.record.lock
        if worked.standing is not self.planner.remembered.get(name):
            self._kept[name] = replace(worked.standing, product=worked.product)
            remember(self.workshop.store, str(self.order.making.to), worked.product, self._kept[name])
        if self.order.write_locks:
            self._write_lock(name)

    def _write_lock(self, name: str) -> None:
        """Put tonight's section into the lock beside the recipe, if it says something else."""
        entry = self.catalogue.find(name)
        assert entry is not None
        path = lock_path(entry.path)
        lock = read_lock(path)
        new = parse_lock(self._locks[name], name)
        ours = {(one.resolution.platform, one.resolution.arch) for one in new.sections}
        others = (
            [one for one in lock.sections if (one.resolution.platform, one.resolution.arch) not in ours] if lock else []
        )
        whole = Lock(new.recipe, (*others, *new.sections))
        if lock is None or set(lock.sections) != set(whole.sections):
            write_lock(path, whole)


def _tried(product: Product, workers: Sequence[str]) -> Product:
    """A product that failed for what machines lack, with the workers that it failed on."""
    if product.run.failure is None or len(workers) < 2:
        return product
    hint = f"{product.run.failure.hint}; it failed on {', '.join(workers)}".removeprefix("; ")
    return replace(product, run=replace(product.run, failure=replace(product.run.failure, hint=hint)))


def _blocked(product: Product, parent: Product, making: Making) -> Product:
    why = f"its parent '{parent.name}' failed"
    failure = Failure(
        Stage.PARENT,
        "parent-failed",
        why,
        place=product.recipe,
        hint=f"fix '{parent.name}' first: {parent.run.why}",
        command=command_for(parent, making),
    )
    return _with_run(product, Outcome.BLOCKED, why, failure)


def _with_run(product: Product, outcome: Outcome, why: str, failure: Failure | None = None) -> Product:
    return replace(product, run=replace(product.run, outcome=outcome, why=why, failure=failure))
