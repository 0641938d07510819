"""Track the jobs for the architectures of one product, and join their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace

from pipeline.errors import PublicationRefused
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import Failure, Outcome, Product, ProductRun
from pipeline.nightly.executors.executor_protocol import TaskResult
from pipeline.nightly.job import Job, JobResult, MemberImage
from pipeline.nightly.job_failure import failed_product
from pipeline.nightly.job_result_check import require_member_of
from pipeline.nightly.lock_comparison import joined_locks

_SEPARATOR = "/"
"""Between a product's name, which has none, and the architecture in a task's name."""


def task_product(task: str) -> tuple[str, str]:
    """Return the product and the architecture ("": all) that a task is for, by the task's name."""
    product, _, arch = task.partition(_SEPARATOR)
    return product, arch


@dataclass(slots=True)
class MemberTasks:
    """The tasks of one product, of several architectures, that each make one image."""

    job: Job
    _ended: dict[str, TaskResult] = field(default_factory=dict)

    def tasks(self) -> Iterator[tuple[str, Job]]:
        """Yield each task's name and job."""
        for arch in self.job.product.architectures:
            yield f"{self.job.product.name}{_SEPARATOR}{arch}", replace(self.job, architecture=arch)

    def take(self, arch: str, ended: TaskResult) -> Job | TaskResult | None:
        """Take the result of one task; None as long as others run.

        Then the job that publishes the index, or the product's result if one of them failed, or none built anything.
        """
        self._ended[arch] = ended
        wanted = self.job.product.architectures
        if len(self._ended) < len(wanted):
            return None
        every = [(name, self._ended[name]) for name in wanted]
        for name, one in every:
            if not isinstance(one.result, JobResult):
                return replace(one, name=self.job.product.name, lost=f"{name}: {one.lost or 'no result'}")
            if one.result.member is None:
                return self._failed(one, _of(name, one.result.product))
            try:
                require_member_of(one.result.member, name)
            except PublicationRefused as error:
                return self._failed(one, _of(name, failed_product(self.job.product, error, self.job.settings)))
        results = [one.result for _, one in every if isinstance(one.result, JobResult)]
        members = tuple(one.member for one in results if one.member is not None)
        if all(one.product.run.outcome is Outcome.UNCHANGED for one in results):
            return TaskResult(self.job.product.name, self._unchanged(results[0], members))
        return replace(self.job, product=self._product(results), members=members)

    def completed(self, product: Product) -> Product:
        """Return the product of the index's job with the beginning and duration of all jobs.

        Its workers are those of the images. Its steps are those of the image that took longest, and those of the index.
        """
        runs = [(one.result.product.run, one) for one in self._ended.values() if isinstance(one.result, JobResult)]
        last, _ = max(runs, key=lambda run: run[0].began + run[0].took)
        began = min(run.began for run, _ in runs)
        workers = dict.fromkeys(one.worker for _, one in runs if one.worker)
        own = product.run
        run = replace(
            own,
            began=began,
            took=max(own.took, own.began + own.took - began),
            steps=(*last.steps, *own.steps),
            worker=", ".join(workers),
        )
        if run.outcome is not Outcome.BUILT:
            return replace(product, run=run)
        return replace(product, run=run, published=replace(product.published, built=run.began, build_took=run.took))

    def _product(self, results: list[JobResult]) -> Product:
        """Return the product with the figures of the first image that was built.

        With what ran each of them.
        """
        former = self.job.product.published.executions
        tested = [
            one
            for result in results
            for one in (result.product.published.executions if _was_built(result.product.run) else ())
        ]
        known = {one.architecture: one for one in (*former, *tested)}
        built = [one.product for one in results if _was_built(one.product.run)]
        first = built[0]
        why = " and ".join(dict.fromkeys(one.run.why for one in built))
        return replace(
            first,
            run=replace(first.run, why=why, uploaded=sum(one.run.uploaded for one in built)),
            published=replace(first.published, executions=tuple(known[name] for name in sorted(known))),
        )

    def _failed(self, task: TaskResult, product: Product) -> TaskResult:
        return replace(task, name=self.job.product.name, result=JobResult(product, None))

    def _unchanged(self, first: JobResult, members: tuple[MemberImage, ...]) -> JobResult:
        on_mirror = self.job.on_mirror
        assert on_mirror is not None
        record = replace(on_mirror.record, facts=self.job.facts)
        lock = joined_locks([member.lock for member in members])
        return JobResult(first.product, replace(on_mirror, record=record), lock)


def _was_built(run: ProductRun) -> bool:
    return run.outcome is not Outcome.UNCHANGED


def _of(arch: str, product: Product) -> Product:
    """Return a failed product whose failure names the architecture."""
    failure = product.run.failure
    if failure is None or failure.message.startswith(f"{arch}: "):
        return product
    named: Failure = replace(failure, message=f"{arch}: {failure.message}")
    return replace(product, run=replace(product.run, why=f"{arch}: {product.run.why}", failure=named))
