"""Launching the instances of one image side by side and asking each of them everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.model.image import Image
from pipeline.model.smoke import Check, CheckKind, CheckResult, InstanceReport, SmokePlan, SmokeReport
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.sandbox import Instance, Station, launch
from pipeline.smoke.questions import ask
from pipeline.smoke.report import plan_digest

STOPPING = 10.0
"""Seconds that a good instance gets to end when nothing asks how it ends: what `docker stop` gives. One that
has failed is killed: nothing would be learnt from waiting."""

LOG_SHOWN = 256 << 10
"""Characters of an instance's log that go into the report: a quarter from its beginning, the rest its end."""


def smoke(
    image: Image,
    lowers: Sequence[Path],
    plan: SmokePlan,
    *,
    station: Station,
    progress: Progress = QUIET,
    clock: Callable[[], float],
) -> SmokeReport:
    """Launch `plan.instances` instances of `image` from its unpacked layers (lowest first) and ask `plan.ready`
    and `plan.checks` of each. `clock` gives seconds since the epoch.

    A failed image is a report that does not pass. Raises EnvironmentLacking when the machine cannot do it.
    """
    started, begun = clock(), time.monotonic()
    questions = ([plan.ready] if plan.ready else []) + list(plan.checks)
    instances: tuple[InstanceReport, ...] = ()
    if questions and plan.instances > 0:
        with task(progress, "smoke", image.name, total=plan.instances * len(questions)) as running:
            instances = _side_by_side(_Asker(image, lowers, plan, station, running), plan.instances)
    return SmokeReport(
        image=image.digest,
        plan=plan_digest(plan),
        runtime=str(station.runtime),
        instances=instances,
        started=int(started),
        took=_milliseconds(begun),
        failure=_failure(plan, questions, instances),
    )


def _side_by_side(asker: _Asker, count: int) -> tuple[InstanceReport, ...]:
    with ThreadPoolExecutor(max_workers=count, thread_name_prefix="smoke") as pool:
        futures = [pool.submit(asker.examine, number) for number in range(1, count + 1)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            return tuple(future.result() for future in futures if future.done())
        except BaseException:
            # One cannot go on (or the person has had enough): the others need not wait for their deadlines.
            asker.give_up()
            raise


def _failure(plan: SmokePlan, questions: Sequence[Check], instances: Sequence[InstanceReport]) -> str:
    if not questions:
        return "nothing was asked: the recipe has neither `smoke.ready` nor `smoke.checks`"
    if not instances:
        return "nothing was launched: the recipe asks for no instance"
    if plan.limits.enforce:
        loose = sorted(
            {
                f"{reading.name} ({reading.reason})"
                for instance in instances
                for reading in instance.limits
                if not reading.enforced
            }
        )
        if loose:
            return f"limits that must be enforced are not: {', '.join(loose)}"
    return ""


@dataclass(slots=True)
class _Asker:
    image: Image
    lowers: Sequence[Path]
    plan: SmokePlan
    station: Station
    running: Task
    _living: list[Instance] = field(default_factory=list)
    _given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def give_up(self) -> None:
        """End all instances, now and later: whoever waits for an answer learns it at once."""
        with self._lock:
            self._given_up = True
            for instance in self._living:
                instance.kill()

    def examine(self, number: int) -> InstanceReport:
        """Launch one instance and ask it everything."""
        name = f"{self.image.name}-{number}"
        begun = time.monotonic()
        try:
            with (
                launch(self.image.config, self.lowers, self.plan.limits, station=self.station, name=name) as instance,
                self._known(instance),
            ):
                return self._examined(name, instance, begun)
        except EnvironmentLacking:
            raise
        except RelbuildError as error:
            result = CheckResult("starts", False, _milliseconds(begun), str(error))
            return InstanceReport(name, (result,), (), None, None, None, None, None, None, None)

    @contextmanager
    def _known(self, instance: Instance) -> Iterator[None]:
        with self._lock:
            self._living.append(instance)
            if self._given_up:
                instance.kill()
        try:
            yield
        finally:
            with self._lock:
                self._living.remove(instance)

    def _examined(self, name: str, instance: Instance, begun: float) -> InstanceReport:
        limits = instance.readings()
        results, ready_after = self._answers(instance, begun)
        exit_code = instance.exit_code
        if instance.alive:
            if all(result.passed for result in results):
                exit_code = instance.stop(self.image.config.stop_signal, STOPPING)
            instance.kill()
        usage = instance.usage()
        return InstanceReport(
            name=name,
            checks=results,
            limits=limits,
            ready_after=ready_after,
            exit_code=exit_code,
            peak_memory=usage.peak_memory,
            cpu_time=usage.cpu_time,
            throttled_time=usage.throttled_time,
            peak_pids=usage.peak_pids,
            oom_kills=usage.oom_kills,
            log=_shortened(instance.log.decode(errors="replace")),
        )

    def _answers(self, instance: Instance, begun: float) -> tuple[tuple[CheckResult, ...], int | None]:
        results: list[CheckResult] = []
        ready_after: int | None = None
        unasked = ""
        if self.plan.ready is not None:
            result = self._ask(self.plan.ready, instance)
            results.append(result)
            if result.passed:
                ready_after = _milliseconds(begun)
            else:
                unasked = "not asked: the instance was not ready"
        for check in self.plan.checks:
            if unasked:
                results.append(CheckResult(check.name, False, 0, unasked))
                self.running.advance(1)
                continue
            results.append(self._ask(check, instance))
            if check.kind is CheckKind.STOP:
                unasked = "not asked: the instance was stopped before"
        return tuple(results), ready_after

    def _ask(self, check: Check, instance: Instance) -> CheckResult:
        try:
            result = ask(check, instance, self.image.config.stop_signal)
        except EnvironmentLacking:
            raise
        except RelbuildError as error:
            result = CheckResult(check.name, False, 0, str(error))
        self.running.advance(1)
        return result


def _shortened(log: str) -> str:
    if len(log) <= LOG_SHOWN:
        return log
    head, tail = LOG_SHOWN // 4, LOG_SHOWN - LOG_SHOWN // 4
    return f"{log[:head]}\n[relbuild: {len(log) - LOG_SHOWN} characters left out]\n{log[-tail:]}"


def _milliseconds(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
