"""One product of a night, made by one worker. Start at `work`.

It is resolved if need be, built, tested, published.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.build import BuildResult, build
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
from pipeline.mirror.address import Address
from pipeline.model.absolute_path import AbsolutePath
from pipeline.model.enforcement import unenforced_lines
from pipeline.model.lock import Lock
from pipeline.model.night_record import (
    Failure,
    Outcome,
    Product,
    Stage,
)
from pipeline.model.publication import Publication
from pipeline.model.recipe import Recipe
from pipeline.model.report import SmokeReport
from pipeline.model.rules import MirrorRules
from pipeline.nightly.attached_documents import list_attached, published_packages
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, MachineFault
from pipeline.nightly.inputs import (
    REPOSITORIES_INPUT,
    TEST_INPUTS,
    changed_inputs,
    in_words,
    template_names,
    templates_digest,
)
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct, record_predicate
from pipeline.nightly.lock_comparison import same_packages
from pipeline.nightly.progress_log import ProgressLog
from pipeline.oci import SigningKey, load_signing_key
from pipeline.oci.predicates import LOCK
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.progress import Progress
from pipeline.recipes import load_recipe
from pipeline.release import PublishOptions, publish
from pipeline.release.current_images import mirror_access
from pipeline.release.retest import retest
from pipeline.resolve import LockMode, format_lock
from pipeline.store import Store, given_key
from pipeline.system_errors import relbuild_error

NIGHT_PASSWORD_VARIABLES = ("RELBUILD_KEY_PASSWORD", "COSIGN_PASSWORD")
"""Environment variables that may hold the password of the key that signs. Nobody is there to be asked for it."""

LOG_LINES = 60
"""Last lines of a container's output that are kept of a failure."""


@dataclass(frozen=True, slots=True)
class RunSettings:
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
    is the digest of the image that it is built from, as it was published. `facts` are its inputs, `on_mirror` what is
    published. `test_only`: only its checks are others.
    """

    product: Product
    recipe: AbsolutePath
    settings: RunSettings
    facts: tuple[tuple[str, str], ...]
    locks: tuple[tuple[str, str], ...]
    why: str
    on_mirror: PublishedProduct | None = None
    parent: Digest | None = None
    resolve: bool = False
    test_only: bool = False

    @property
    def may_be_same(self) -> bool:
        """Has it to be resolved to know whether the image would be another?"""
        if not self.resolve or self.on_mirror is None or self.settings.retest:
            return False
        return set(changed_inputs(self.on_mirror.record.inputs, dict(self.facts))) <= TEST_INPUTS | {REPOSITORIES_INPUT}


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job, and what is to be kept of it: None where it failed."""

    product: Product
    on_mirror: PublishedProduct | None
    lock: str = ""


def run_job(job: object, progress: Progress) -> object:
    """Perform one job: a function of its own process.

    What fails is told in the product, never raised.
    """
    assert isinstance(job, Job)
    job = _here(job)
    clock = job.settings.clock
    progress_log, began = ProgressLog(progress, clock), clock()
    fault = ""
    try:
        job_result = _Worker(job, progress_log, _build_environment(job.settings, progress_log)).do()
    except Exception as error:
        job_result = JobResult(_failed(job, error, progress_log), None)
        fault = job_result.product.run.why if isinstance(relbuild_error(error), EnvironmentLacking) else ""
    run = replace(
        job_result.product.run, began=int(began * 1000), took=int((clock() - began) * 1000), steps=progress_log.steps
    )
    timed = replace(job_result.product, run=run)
    if run.outcome is Outcome.BUILT:
        timed = replace(timed, published=replace(timed.published, built=run.began, build_took=run.took))
    on_mirror = replace(job_result.on_mirror, product=timed) if job_result.on_mirror else None
    job_result = replace(job_result, product=timed, on_mirror=on_mirror)
    return MachineFault(fault, job_result) if fault else job_result


def _failed(job: Job, error: Exception, progress_log: ProgressLog) -> Product:
    """Return the product with what was raised as its failure.

    A defect of relbuild fails one product, and the page shows where it is.
    """
    known = relbuild_error(error)
    if known is not None:
        return _as_given(failed_product(job.product, known, job.settings, log=tuple(progress_log.lines)), job)
    lines = tuple(line for part in traceback.format_exception(error) for line in part.rstrip().split("\n"))
    failure = Failure(
        Stage.WORKER,
        "internal-error",
        f"{type(error).__name__}: {error}",
        hint="this is a defect of relbuild: report it with these lines",
        log=(*progress_log.lines, *lines)[-LOG_LINES:],
        command=command_for(job.product, job.settings),
    )
    return _with_failure(job.product, failure.message, failure)


def _here(job: Job) -> Job:
    """Return the job as a worker of a cluster does it.

    It has the worker's own store, and the giver's files where they stand here.
    """
    here, settings = CURRENT_WORKER.get(), job.settings
    if here is None:
        return job
    settings = replace(
        settings,
        repositories=here.local_path(settings.repositories),
        key=here.local_path(settings.key) if settings.key else None,
        store=here.store,
        output=here.output,
    )
    return replace(job, recipe=here.local_path(job.recipe), settings=settings)


def failed_product(
    product: Product, error: RelbuildError, settings: RunSettings, *, log: tuple[str, ...] = ()
) -> Product:
    """The product with what kept it from being made. What stands on the mirror is left as it is."""
    first = error.problems[0]
    message = "\n".join(problem.message for problem in error.problems)
    failure = Failure(
        _stage(error), first.code, message, first.place or "", first.hint or "", log, command_for(product, settings)
    )
    return _with_failure(product, message.split("\n")[0], failure)


def _with_failure(product: Product, why: str, failure: Failure) -> Product:
    return replace(product, run=replace(product.run, outcome=Outcome.FAILED, why=why, failure=failure))


def _as_given(product: Product, job: Job) -> Product:
    """Return a product whose failure names files as whoever asked for the night names them.

    They are named neither by where the worker keeps them nor by absolute paths where relative ones were given.
    """
    here, failure = CURRENT_WORKER.get(), product.run.failure
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


def command_for(product: Product, settings: RunSettings) -> str:
    """Return the command that a person types to see a failure again."""
    mode = "--locked" if settings.locked else "--upgrade"
    words = ["relbuild", "build", product.recipe, mode, "--retest"]
    words += ["--platform", settings.platform] if settings.platform else []
    words += [word for arch in settings.architectures for word in ("--arch", arch)]
    words += ["--full"] if settings.full else []
    words += ["--compression", settings.compression.value] if settings.compression is not Compression.GZIP else []
    return " ".join(words)


def load_night_key(settings: RunSettings, progress: Progress) -> SigningKey:
    """Load the key that signs, its password from the environment.

    Raises UsageError, EnvironmentLacking.
    """
    assert settings.key is not None
    return load_signing_key(settings.key, password_from_environment(settings), progress=progress)


def password_from_environment(settings: RunSettings) -> Callable[[], bytes]:
    """Takes the password of the key from the environment."""

    def ask() -> bytes:
        for name in NIGHT_PASSWORD_VARIABLES:
            if name in settings.environment:
                return settings.environment[name].encode()
        raise EnvironmentLacking(
            "key-password-missing",
            "the key has a password, which nightly does not prompt for",
            place=str(settings.key),
            hint=f"set the environment variable {NIGHT_PASSWORD_VARIABLES[0]}",
        )

    return ask


def _build_environment(settings: RunSettings, progress: Progress) -> BuildEnvironment:
    return BuildEnvironment(
        Store.open(settings.store, key=given_key(settings.environment), tell=progress.warn),
        progress,
        settings.environment,
        settings.clock,
        settings.offline,
        settings.runtime,
    )


@dataclass(frozen=True, slots=True)
class _Worker:
    job: Job
    progress_log: ProgressLog
    build_env: BuildEnvironment

    def do(self) -> JobResult:
        """Whatever the job asks for."""
        with self.build_env.store.temporary("locks") as folder:
            job, options = self.job, self._build_options(folder)
            recipe = load_recipe(job.recipe)
            if job.test_only and job.on_mirror is not None:
                return self._retest(recipe, job.on_mirror, job.on_mirror.record.lock, job.why)
            why = job.why
            if job.resolve:
                locked = lock_here(options, self.build_env)
                self._demand_parent(locked)
                found = self._unchanged(recipe, locked)
                if found is not None:
                    return found
                why = why_built(job.on_mirror, _lock_text(locked), dict(job.facts))
            built = build(options, self.build_env)
            self._demand_parent(built.locked)
            return self._publish(recipe, built, why)

    def _build_options(self, folder: Path) -> BuildOptions:
        job, settings = self.job, self.job.settings
        mode = LockMode.LOCKED if settings.locked else LockMode.UPGRADE if job.resolve else LockMode.DEFAULT
        if not settings.locked:
            for name, text in job.locks:
                (folder / f"{name}.lock").write_text(text)
        return BuildOptions(
            recipe=job.recipe,
            repositories=settings.repositories,
            platform=settings.platform,
            architectures=settings.architectures,
            mode=mode,
            retest=settings.retest,
            compression=settings.compression,
            output=settings.output,
            full=settings.full,
            locks=None if settings.locked else folder,
        )

    def _demand_parent(self, locked: LockedRecipe) -> None:
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

    def _unchanged(self, recipe: Recipe, locked: LockedRecipe) -> JobResult | None:
        """Return the result where the resolution is the former one, else None.

        It says that nothing changed, or that the checks did.
        """
        on_mirror, facts = self.job.on_mirror, dict(self.job.facts)
        if on_mirror is None or self.job.settings.retest:
            return None
        text = _lock_text(locked)
        others = set(changed_inputs(on_mirror.record.inputs, facts)) - {REPOSITORIES_INPUT}
        if not same_packages(on_mirror.record.lock, text) or others - TEST_INPUTS:
            return None
        if others:
            return self._retest(recipe, on_mirror, text, f"{in_words(sorted(others))} changed")
        record = replace(on_mirror.record, facts=self.job.facts)
        run = replace(self.job.product.run, outcome=Outcome.UNCHANGED, why="resolved to the same packages")
        return JobResult(replace(self.job.product, run=run), replace(on_mirror, record=record), text)

    def _retest(self, recipe: Recipe, on_mirror: PublishedProduct, text: str, why: str) -> JobResult:
        job, settings = self.job, self.job.settings
        record = replace(on_mirror.record, facts=job.facts)
        with mirror_access(self.build_env).repository(settings.to.below(recipe.name), write=True) as repository:
            done = retest(
                repository,
                on_mirror.digest,
                recipe.smoke,
                load_night_key(settings, self.progress_log),
                self.build_env,
                full=settings.full,
                folder=recipe.path.parent,
                also=lambda image: {LOCK: record_predicate(record)},
            )
            attached = list_attached(repository, on_mirror.digest)
        report = done.tested.report
        product = replace(job.product, published=job.product.published.with_test(report))
        if not report.passed:
            return JobResult(self._not_passed(product, report), None)
        sent = sum(size for _, size in done.uploaded)
        product = replace(
            product,
            run=replace(product.run, outcome=Outcome.RETESTED, why=why, uploaded=sent),
            published=replace(
                product.published, digest=on_mirror.digest, immutable=on_mirror.immutable, attached=attached
            ),
        )
        return JobResult(product, replace(on_mirror, record=record), text)

    # --- built ------------------------------------------------------------------------------------

    def _publish(self, recipe: Recipe, built: BuildResult, why: str) -> JobResult:
        job, settings = self.job, self.job.settings
        product = self._product(built, why)
        if built.report is None or not built.report.passed:
            return JobResult(self._not_passed(product, built.report), None)
        names = template_names(recipe, built.assembled.templates)
        facts = {**dict(job.facts), "templates": templates_digest(recipe, names)}
        text = _lock_text(built.locked)
        record = InputsRecord(tuple(sorted(facts.items())), names, text)
        options = PublishOptions(
            layouts=(built.layout,),
            to=settings.to,
            key=load_night_key(settings, self.progress_log),
            rules=settings.rules,
            known_as=settings.known_as,
            attested={LOCK: record_predicate(record)},
        )
        (publication,) = publish(options, self.build_env)
        for line in unenforced_lines(publication.limits):
            self.build_env.progress.warn(f"{recipe.name}: {line.removeprefix('! ')}")
        with mirror_access(self.build_env).repository(settings.to.below(recipe.name)) as repository:
            attached = list_attached(repository, publication.digest)
        product = self._published(product, publication, tested=not built.verdict_reused)
        product = replace(product, published=replace(product.published, attached=attached))
        return JobResult(product, PublishedProduct(record, publication.digest, publication.immutable), text)

    def _product(self, built: BuildResult, why: str) -> Product:
        before = self.job.on_mirror
        had = published_packages(before) if before else None
        product = self.job.product
        published = product.published.with_build(built.bill, built.image, built.locked.all_chosen, before=had)
        run = replace(product.run, outcome=Outcome.BUILT, why=why)
        return replace(product, run=run, published=published.with_test(built.report))

    def _published(self, product: Product, publication: Publication, *, tested: bool) -> Product:
        before = self.job.on_mirror.digest if self.job.on_mirror else None
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
            hint=f"see {self.job.settings.output / product.name}.report/ for the check results and the containers' "
            "logs",
            log=tuple(output[-LOG_LINES:]) or tuple(self.progress_log.lines),
            command=command_for(product, self.job.settings),
        )
        before = self.job.product  # What stands on the mirror is what it was.
        return _with_failure(replace(before, published=before.published.with_test(report)), problems[0], failure)


def why_built(on_mirror: PublishedProduct | None, lock: str, facts: Mapping[str, str]) -> str:
    """Return the reason why a product is built, in words."""
    if on_mirror is None:
        return "not published yet"
    changed = [name for name in changed_inputs(on_mirror.record.inputs, facts) if name != REPOSITORIES_INPUT]
    reasons = []
    if not same_packages(on_mirror.record.lock, lock):
        reasons.append("packages changed")
    if changed:
        reasons.append(f"{in_words(changed)} changed")
    return " and ".join(reasons) or "requested"


def _lock_text(locked: LockedRecipe) -> str:
    return format_lock(Lock(locked.recipe.name, (locked.section,)))
