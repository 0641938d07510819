"""One product of a night, made by one worker. Start at `work`.

It is resolved if need be, built, tested, published.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.build import Built, build
from pipeline.build import lock as lock_here
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.errors import (
    EnvironmentLacking,
    PublicationRefused,
    RecipeError,
    RelbuildError,
    ResolutionError,
    SmokeError,
    VerificationError,
)
from pipeline.gather import Locked, Order, Workshop
from pipeline.mirror.address import Address
from pipeline.model.absolute_path import AbsolutePath
from pipeline.model.enforcement import unenforced_lines
from pipeline.model.lock import Lock
from pipeline.model.night import Failure, Outcome, Product, Stage
from pipeline.model.publication import Publication
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.rules import MirrorRules
from pipeline.nightly.crew import HERE, MachineFault
from pipeline.nightly.figures import attached_to, packages_of
from pipeline.nightly.inputs import OFFER, TESTING, differing, in_words, template_names, templates
from pipeline.nightly.record import Record, Standing, predicate
from pipeline.nightly.relaying import Logged
from pipeline.nightly.settling import same_packages
from pipeline.oci import SigningKey, load_signing_key
from pipeline.oci.predicates import LOCK
from pipeline.progress import Progress
from pipeline.recipes import load_recipe
from pipeline.release import PublishOrder, publish
from pipeline.release.current import mirror_access
from pipeline.release.retest import retest
from pipeline.resolve import Mode, format_lock
from pipeline.store import Store, given_key
from pipeline.system_errors import relbuild_error

PASSWORDS = ("RELBUILD_KEY_PASSWORD", "COSIGN_PASSWORD")
"""Environment variables that may hold the password of the key that signs. Nobody is there to be asked for it."""

LOG_LINES = 60
"""Last lines of a container's output that are kept of a failure."""


@dataclass(frozen=True, slots=True)
class Making:
    """The settings that all products of a night have in common.

    Every path is absolute, because it is used in other processes and on other machines. `key` is the file of the key
    that signs, on the worker (None where nothing is to be signed), `fingerprint` is its; `clock` gives seconds since
    the epoch.
    """

    repositories: AbsolutePath
    to: Address
    key: AbsolutePath | None
    store: AbsolutePath
    output: AbsolutePath
    environment: Mapping[str, str] = field(repr=False)
    clock: Callable[[], float]
    platform: str | None = None
    architectures: tuple[str, ...] = ()
    fingerprint: str = ""
    known_as: str = ""
    rules: MirrorRules = MirrorRules()
    compression: Compression = Compression.GZIP
    locked: bool = False
    offline: bool = False
    full: bool = False
    retest: bool = False
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """The task to make one product.

    `locks` are (product, text): its own, "" if it is to be resolved here, and those of what it is built from; `parent`
    is the digest of the image that it is built from, as it was published. `facts` are its inputs, `standing` what is on
    the mirror. `test_only`: only its checks are others.
    """

    product: Product
    recipe: AbsolutePath
    making: Making
    facts: tuple[tuple[str, str], ...]
    locks: tuple[tuple[str, str], ...]
    why: str
    standing: Standing | None = None
    parent: Digest | None = None
    resolve: bool = False
    test_only: bool = False

    @property
    def may_be_same(self) -> bool:
        """Has it to be resolved to know whether the image would be another?"""
        if not self.resolve or self.standing is None or self.making.retest:
            return False
        return set(differing(self.standing.record.inputs, dict(self.facts))) <= TESTING | {OFFER}


@dataclass(frozen=True, slots=True)
class Worked:
    """The result of a job, and what is to be kept of it: None where it failed."""

    product: Product
    standing: Standing | None
    lock: str = ""


def work(job: object, progress: Progress) -> object:
    """Perform one job: a function of its own process.

    What fails is told in the product, never raised.
    """
    assert isinstance(job, Job)
    job = _here(job)
    clock = job.making.clock
    logged, began = Logged(progress, clock), clock()
    fault = ""
    try:
        worked = _Worker(job, logged, _workshop(job.making, logged)).do()
    except Exception as error:
        worked = Worked(_failed(job, error, logged), None)
        fault = worked.product.run.why if isinstance(relbuild_error(error), EnvironmentLacking) else ""
    run = replace(worked.product.run, began=int(began * 1000), took=int((clock() - began) * 1000), steps=logged.steps)
    timed = replace(worked.product, run=run)
    if run.outcome is Outcome.BUILT:
        timed = replace(timed, published=replace(timed.published, built=run.began, build_took=run.took))
    standing = replace(worked.standing, product=timed) if worked.standing else None
    worked = replace(worked, product=timed, standing=standing)
    return MachineFault(fault, worked) if fault else worked


def _failed(job: Job, error: Exception, logged: Logged) -> Product:
    """Return the product with what was raised as its failure.

    A defect of relbuild fails one product, and the page shows where it is.
    """
    known = relbuild_error(error)
    if known is not None:
        return _as_given(failed(job.product, known, job.making, log=tuple(logged.lines)), job)
    lines = tuple(line for part in traceback.format_exception(error) for line in part.rstrip().split("\n"))
    failure = Failure(
        Stage.WORKER,
        "internal-error",
        f"{type(error).__name__}: {error}",
        hint="this is a defect of relbuild: report it with these lines",
        log=(*logged.lines, *lines)[-LOG_LINES:],
        command=command_for(job.product, job.making),
    )
    return _with_failure(job.product, failure.message, failure)


def _here(job: Job) -> Job:
    """Return the job as a worker of a cluster does it.

    It has the worker's own store, and the giver's files where they stand here.
    """
    here, making = HERE.get(), job.making
    if here is None:
        return job
    making = replace(
        making,
        repositories=here.at(making.repositories),
        key=here.at(making.key) if making.key else None,
        store=here.store,
        output=here.output,
    )
    return replace(job, recipe=here.at(job.recipe), making=making)


def failed(product: Product, error: RelbuildError, making: Making, *, log: tuple[str, ...] = ()) -> Product:
    """The product with what kept it from being made. What stands on the mirror is left as it is."""
    first = error.problems[0]
    message = "\n".join(problem.message for problem in error.problems)
    failure = Failure(
        _stage(error), first.code, message, first.place or "", first.hint or "", log, command_for(product, making)
    )
    return _with_failure(product, message.split("\n")[0], failure)


def _with_failure(product: Product, why: str, failure: Failure) -> Product:
    return replace(product, run=replace(product.run, outcome=Outcome.FAILED, why=why, failure=failure))


def _as_given(product: Product, job: Job) -> Product:
    """Return a product whose failure names files as whoever asked for the night names them.

    They are named neither by where the worker keeps them nor by absolute paths where relative ones were given.
    """
    here, failure = HERE.get(), product.run.failure
    assert failure is not None
    given = Path(product.recipe).parent

    def named(text: str) -> str:
        text = text.replace(f"{job.recipe.parent}/", "" if given == Path() else f"{given}/")
        return text.replace(f"{here.files}/", "/") if here and here.files else text

    failure = replace(
        failure,
        message=named(failure.message),
        place=named(failure.place),
        hint=named(failure.hint),
        log=tuple(map(named, failure.log)),
    )
    return replace(product, run=replace(product.run, why=named(product.run.why), failure=failure))


def _stage(error: RelbuildError) -> Stage:
    stages = {
        RecipeError: Stage.RECIPE,
        ResolutionError: Stage.RESOLVE,
        SmokeError: Stage.SMOKE,
        PublicationRefused: Stage.PUBLISH,
    }
    return next((stage for kind, stage in stages.items() if isinstance(error, kind)), Stage.BUILD)


def command_for(product: Product, making: Making) -> str:
    """Return the command that a person types to see a failure again."""
    mode = "--locked" if making.locked else "--upgrade"
    words = ["relbuild", "build", product.recipe, mode, "--retest"]
    words += ["--platform", making.platform] if making.platform else []
    words += [word for arch in making.architectures for word in ("--arch", arch)]
    words += ["--full"] if making.full else []
    words += ["--compression", making.compression.value] if making.compression is not Compression.GZIP else []
    return " ".join(words)


def signing_key(making: Making, progress: Progress) -> SigningKey:
    """Load the key that signs, its password from the environment.

    Raises UsageError, EnvironmentLacking.
    """
    assert making.key is not None
    return load_signing_key(making.key, password_of(making), progress=progress)


def password_of(making: Making) -> Callable[[], bytes]:
    """Takes the password of the key from the environment."""

    def ask() -> bytes:
        for name in PASSWORDS:
            if name in making.environment:
                return making.environment[name].encode()
        raise EnvironmentLacking(
            "key-password-missing",
            "the key has a password, which nightly does not prompt for",
            place=str(making.key),
            hint=f"set the environment variable {PASSWORDS[0]}",
        )

    return ask


def _workshop(making: Making, progress: Progress) -> Workshop:
    return Workshop(
        Store.open(making.store, key=given_key(making.environment), tell=progress.warn),
        progress,
        making.environment,
        making.clock,
        making.offline,
        making.runtime,
    )


@dataclass(frozen=True, slots=True)
class _Worker:
    job: Job
    logged: Logged
    workshop: Workshop

    def do(self) -> Worked:
        """Whatever the job asks for."""
        with self.workshop.store.temporary("locks") as folder:
            job, order = self.job, self._order(folder)
            recipe = load_recipe(job.recipe)
            if job.test_only and job.standing is not None:
                return self._retest(recipe, job.standing, job.standing.record.lock, job.why)
            why = job.why
            if job.resolve:
                locked = lock_here(order, self.workshop)
                self._demand_parent(locked)
                found = self._unchanged(recipe, locked)
                if found is not None:
                    return found
                why = why_built(job.standing, _lock_text(locked), dict(job.facts))
            built = build(order, self.workshop)
            self._demand_parent(built.locked)
            return self._publish(recipe, built, why)

    def _order(self, folder: Path) -> Order:
        job, making = self.job, self.job.making
        mode = Mode.LOCKED if making.locked else Mode.UPGRADE if job.resolve else Mode.DEFAULT
        if not making.locked:
            for name, text in job.locks:
                (folder / f"{name}.lock").write_text(text)
        return Order(
            recipe=job.recipe,
            repositories=making.repositories,
            platform=making.platform,
            architectures=making.architectures,
            mode=mode,
            retest=making.retest,
            compression=making.compression,
            output=making.output,
            full=making.full,
            locks=None if making.locked else folder,
        )

    def _demand_parent(self, locked: Locked) -> None:
        """Refuse a child that is not built on the very image that was published tonight.

        Raises VerificationError `parent-differs`.
        """
        if self.job.parent is not None and locked.parent is not None and locked.parent.digest != self.job.parent:
            raise VerificationError(
                "parent-differs",
                f"parent '{locked.parent.name}' is {locked.parent.digest} here, but was published as {self.job.parent}",
                place=str(self.job.recipe),
                hint="this worker has other libraries or files than the one that built it; compare `relbuild version`",
            )

    # --- nothing new, or only the checks ----------------------------------------------------------

    def _unchanged(self, recipe: Recipe, locked: Locked) -> Worked | None:
        """Return the result where the resolution is the former one, else None.

        It says that nothing changed, or that the checks did.
        """
        standing, facts = self.job.standing, dict(self.job.facts)
        if standing is None or self.job.making.retest:
            return None
        text = _lock_text(locked)
        others = set(differing(standing.record.inputs, facts)) - {OFFER}
        if not same_packages(standing.record.lock, text) or others - TESTING:
            return None
        if others:
            return self._retest(recipe, standing, text, f"{in_words(sorted(others))} changed")
        record = replace(standing.record, facts=self.job.facts)
        run = replace(self.job.product.run, outcome=Outcome.UNCHANGED, why="resolved to the same packages")
        return Worked(replace(self.job.product, run=run), replace(standing, record=record), text)

    def _retest(self, recipe: Recipe, standing: Standing, text: str, why: str) -> Worked:
        job, making = self.job, self.job.making
        record = replace(standing.record, facts=job.facts)
        with mirror_access(self.workshop).repository(making.to.below(recipe.name), write=True) as repository:
            done = retest(
                repository,
                standing.digest,
                recipe.smoke,
                signing_key(making, self.logged),
                self.workshop,
                full=making.full,
                folder=recipe.path.parent,
                also=lambda image: {LOCK: predicate(record)},
            )
            attached = attached_to(repository, standing.digest)
        report = done.tested.report
        product = replace(job.product, published=job.product.published.with_test(report))
        if not report.passed:
            return Worked(self._not_passed(product, report), None)
        sent = sum(size for _, size in done.uploaded)
        product = replace(
            product,
            run=replace(product.run, outcome=Outcome.RETESTED, why=why, uploaded=sent),
            published=replace(
                product.published, digest=standing.digest, immutable=standing.immutable, attached=attached
            ),
        )
        return Worked(product, replace(standing, record=record), text)

    # --- built ------------------------------------------------------------------------------------

    def _publish(self, recipe: Recipe, built: Built, why: str) -> Worked:
        job, making = self.job, self.job.making
        product = self._product(built, why)
        if built.report is None or not built.report.passed:
            return Worked(self._not_passed(product, built.report), None)
        names = template_names(recipe, built.assembled.templates)
        facts = {**dict(job.facts), "templates": templates(recipe, names)}
        text = _lock_text(built.locked)
        record = Record(tuple(sorted(facts.items())), names, text)
        order = PublishOrder(
            layouts=(built.layout,),
            to=making.to,
            key=signing_key(making, self.logged),
            rules=making.rules,
            known_as=making.known_as,
            attested={LOCK: predicate(record)},
        )
        (publication,) = publish(order, self.workshop)
        for line in unenforced_lines(publication.limits):
            self.workshop.progress.warn(f"{recipe.name} {line}")
        with mirror_access(self.workshop).repository(making.to.below(recipe.name)) as repository:
            attached = attached_to(repository, publication.digest)
        product = self._published(product, publication, tested=not built.verdict_reused)
        product = replace(product, published=replace(product.published, attached=attached))
        return Worked(product, Standing(record, publication.digest, publication.immutable), text)

    def _product(self, built: Built, why: str) -> Product:
        before = self.job.standing
        had = packages_of(before) if before else None
        product = self.job.product
        published = product.published.with_build(built.bill, built.image, built.locked.all_chosen, before=had)
        run = replace(product.run, outcome=Outcome.BUILT, why=why)
        return replace(product, run=run, published=published.with_test(built.report))

    def _published(self, product: Product, publication: Publication, *, tested: bool) -> Product:
        before = self.job.standing.digest if self.job.standing else None
        same = before == publication.digest
        outcome = Outcome.BUILT if not same or publication.moved else Outcome.RETESTED if tested else Outcome.UNCHANGED
        former = self.job.product.published
        return replace(
            product,
            run=replace(
                product.run,
                outcome=outcome,
                why=f"{product.run.why}; the image is identical" if same else product.run.why,
                uploaded=publication.bytes_uploaded,
                moved=tuple(move.tag for move in publication.moved),
            ),
            published=replace(
                product.published,
                digest=publication.digest,
                previous=former.previous if same else before,
                changes=former.changes if same else product.published.changes,
                immutable=publication.immutable,
                tags=(*(move.tag for move in publication.moved), *publication.unmoved),
            ),
        )

    def _not_passed(self, product: Product, report: SmokeReport | None) -> Product:
        problems = report.problems if report else ("the image was not launched",)
        output = [
            f"{instance.name}: {line}"
            for instance in (report.instances if report else ())
            for line in instance.log.rstrip().split("\n")
            if line
        ]
        failure = Failure(
            Stage.SMOKE,
            "smoke-failed",
            "\n".join(problems),
            place=self.job.product.recipe,
            hint=f"see {self.job.making.output / product.name}.report/ for the check results and the containers' logs",
            log=tuple(output[-LOG_LINES:]) or tuple(self.logged.lines),
            command=command_for(product, self.job.making),
        )
        before = self.job.product  # What stands on the mirror is what it was.
        return _with_failure(replace(before, published=before.published.with_test(report)), problems[0], failure)


def why_built(standing: Standing | None, lock: str, facts: Mapping[str, str]) -> str:
    """Return the reason why a product is built, in words."""
    if standing is None:
        return "not published yet"
    changed = [name for name in differing(standing.record.inputs, facts) if name != OFFER]
    reasons = []
    if not same_packages(standing.record.lock, lock):
        reasons.append("packages changed")
    if changed:
        reasons.append(f"{in_words(changed)} changed")
    return " and ".join(reasons) or "requested"


def _lock_text(locked: Locked) -> str:
    return format_lock(Lock(locked.recipe.name, (locked.section,)))
