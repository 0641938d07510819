"""Execute the job of one product in a worker: resolve, build, test, publish.

It is resolved if need be, built, tested, published. What is one of several jobs of a product is in `member_job`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.build import IndexResult, build_architectures, lock_architectures
from pipeline.errors import (
    EnvironmentLacking,
)
from pipeline.heap import use_one_arena
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.enforcement import unenforced_lines
from pipeline.model.lock import Lock
from pipeline.model.night_record import (
    Outcome,
)
from pipeline.model.recipe import Recipe
from pipeline.nightly.attached_documents import list_attached
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, MachineFault
from pipeline.nightly.inputs import (
    REPOSITORIES_INPUT,
    TEST_INPUTS,
    changed_inputs,
    in_words,
    looked_for_templates,
)
from pipeline.nightly.inputs_record import InputsRecord, PublishedProduct, record_predicate
from pipeline.nightly.job import Job, JobResult, RunSettings
from pipeline.nightly.job_failure import PublishingFailedError, failed_job, publishing, smoke_failed_product
from pipeline.nightly.lock_comparison import same_packages
from pipeline.nightly.member_job import make_member, publish_members
from pipeline.nightly.night_key import load_night_key
from pipeline.nightly.product_result import built_product, published_product, tested_product, why_built
from pipeline.nightly.progress_log import ProgressLog
from pipeline.nightly.published_parent import require_parent
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

_UNSUITABLE = frozenset({"architecture-foreign"})
"""Codes of errors for what one task needs and a sound machine may lack, such as an emulator."""


def run_job(job: object, progress: Progress) -> object:
    """Run one job, in a process of its own.

    Failures are in the product's record, never raised.
    """
    assert isinstance(job, Job)
    use_one_arena()
    job = _here(job)
    clock = job.settings.clock
    progress_log, began = ProgressLog(progress, clock), clock()
    fault, unsuitable = "", False
    try:
        job_result = _Worker(job, progress_log, _build_environment(job.settings, progress_log)).do()
    except Exception as raised:
        published = isinstance(raised, PublishingFailedError)
        error = raised.__cause__ if published and isinstance(raised.__cause__, Exception) else raised
        job_result = JobResult(failed_job(job, error, progress_log, published=published), None)
        known = relbuild_error(error)
        if isinstance(known, EnvironmentLacking):
            fault, unsuitable = job_result.product.run.why, known.code in _UNSUITABLE
    run = replace(
        job_result.product.run, began=int(began * 1000), took=int((clock() - began) * 1000), steps=progress_log.steps
    )
    timed = replace(job_result.product, run=run)
    if run.outcome is Outcome.BUILT:
        timed = replace(timed, published=replace(timed.published, built=run.began, build_took=run.took))
    on_mirror = replace(job_result.on_mirror, product=timed) if job_result.on_mirror else None
    job_result = replace(job_result, product=timed, on_mirror=on_mirror)
    return MachineFault(fault, job_result, unsuitable) if fault else job_result


def _here(job: Job) -> Job:
    """Return the job with the paths of this worker of a cluster.

    They are those of its own store, and of the sent files where they were unpacked.
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
        """Resolve the product, build or test it if needed, and publish it."""
        with self.build_env.store.temporary("locks") as temporary:
            folder = temporary / "locks"  # Who writes a lock locks its folder; the temporary one is locked by itself.
            folder.mkdir()
            job, options = self.job, self._build_options(folder)
            recipe = load_recipe(job.recipe, options.target)
            if job.members:
                with publishing():
                    return publish_members(job, recipe, self.build_env, self.progress_log)
            if job.architecture:
                return make_member(job, recipe, options, self.build_env, self.progress_log)
            if job.test_only and job.on_mirror is not None:
                return self._retest(recipe, job.on_mirror, job.on_mirror.record.lock, job.why)
            why = job.why
            if job.resolve:
                locked = lock_architectures(options, self.build_env)
                require_parent(job.parents, locked, job.recipe)
                found = self._unchanged(recipe, locked)
                if found is not None:
                    return found
                why = why_built(job, _lock_text(locked))
            built = build_architectures(options, self.build_env)
            require_parent(job.parents, [one.locked for one in built.members], job.recipe)
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

    # --- no change, or only in the checks ---------------------------------------------------------

    def _unchanged(self, recipe: Recipe, locked: Sequence[LockedRecipe]) -> JobResult | None:
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
        if others and len(locked) > 1:
            return None  # An index is tested where its members are built.
        if others:
            return self._retest(recipe, on_mirror, text, f"{in_words(sorted(others))} changed")
        record = replace(on_mirror.record, facts=self.job.facts)
        run = replace(self.job.product.run, outcome=Outcome.UNCHANGED, why="resolved to the same packages")
        return JobResult(replace(self.job.product, run=run), replace(on_mirror, record=record), text)

    def _retest(self, recipe: Recipe, on_mirror: PublishedProduct, text: str, why: str) -> JobResult:
        job, settings = self.job, self.job.settings
        record = replace(on_mirror.record, facts=job.facts)
        at = settings.to.below(recipe.name)
        with publishing(), mirror_access(self.build_env).repository(at, write=True) as repository:
            done = retest(
                repository,
                on_mirror.digest,
                recipe.smoke,
                load_night_key(settings, self.progress_log),
                self.build_env,
                full=settings.full,
                folder=recipe.path.parent,
                also=lambda image: {LOCK: record_predicate(record)},
                former=settings.former,
            )
            attached = list_attached(repository, on_mirror.digest)
        report = done.tested.report
        product = tested_product(job.product, [report])
        if not report.passed:
            return JobResult(smoke_failed_product(job, report, self.progress_log), None)
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

    def _publish(self, recipe: Recipe, built: IndexResult, why: str) -> JobResult:
        job, settings = self.job, self.job.settings
        first = built.members[0]
        product = tested_product(built_product(job, first, why), [one.report for one in built.members])
        for one in built.members:
            if one.report is None or not one.report.passed:
                return JobResult(smoke_failed_product(job, one.report, self.progress_log), None)
        names, content = looked_for_templates(one.assembled.templates.contents for one in built.members)
        facts = {**dict(job.facts), "templates": content}
        text = _lock_text([one.locked for one in built.members])
        record = InputsRecord(tuple(sorted(facts.items())), names, text)
        options = PublishOptions(
            layouts=(built.layout,),
            to=settings.to,
            key=load_night_key(settings, self.progress_log),
            rules=settings.rules,
            known_as=settings.known_as,
            attested={LOCK: record_predicate(record)},
            read_back=True,
            leave_moved_back=True,
            former=settings.former,
        )
        with publishing():
            (publication,) = publish(options, self.build_env)
        for line in unenforced_lines(publication.limits):
            self.build_env.progress.warn(f"{recipe.name}: {line.removeprefix('! ')}")
        with publishing(), mirror_access(self.build_env).repository(settings.to.below(recipe.name)) as repository:
            attached = list_attached(repository, first.image.digest)
        tested = any(not one.verdict_reused for one in built.members)
        product = published_product(job, product, publication, tested=tested)
        product = replace(product, published=replace(product.published, attached=attached))
        return JobResult(product, PublishedProduct(record, publication.digest, publication.immutable), text)


def _lock_text(locked: Sequence[LockedRecipe]) -> str:
    return format_lock(Lock(locked[0].recipe.name, tuple(one.section for one in locked)))
