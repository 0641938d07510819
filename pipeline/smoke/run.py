"""Run a smoke test: launch all instances of an image in parallel and make the report."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import field, replace
from pathlib import Path
from typing import Protocol

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Image
from pipeline.model.plan_form import plan_digest
from pipeline.model.report import CheckResult, InstanceReport, NeighbourFigures, Older, SmokeReport
from pipeline.model.report_verdict import NOTHING_ASKED, NOTHING_LAUNCHED
from pipeline.model.smoke import Check, SmokePlan, Variant
from pipeline.progress import QUIET, Progress, Task, task
from pipeline.sandbox import (
    EMULATION_SLOWDOWN,
    LaunchedInstance,
    Launcher,
    SandboxRegistry,
    as_launcher,
    require_own_sandboxes,
)
from pipeline.smoke.lifecycle import (
    InstanceContext,
    InstanceLifecycle,
    InstanceRole,
    UnpackedImage,
)
from pipeline.smoke.neighbours import measure_neighbours

_ARBITRARY = range(10_000, 60_000)
"""User IDs that no image has an account for, within a container's range of IDs."""


class FailureHold(Protocol):
    """Protocol of an object that keeps failed instances running, for a person to inspect."""

    def hold(self, instance: LaunchedInstance, results: Sequence[CheckResult]) -> None:
        """Called with an instance that runs and has failed; it is ended when this returns."""

    def let_go(self) -> bool:
        """Make every `hold` return; return True if there was one."""


def smoke(
    image: Image,
    lowers: Sequence[Path],
    plan: SmokePlan,
    *,
    sandboxes: SandboxRegistry | Launcher,
    progress: Progress = QUIET,
    clock: Callable[[], float],
    older: UnpackedImage | None = None,
    holding: FailureHold | None = None,
    emulator: str = "",
) -> SmokeReport:
    """Run a smoke test: launch instances of `image` and ask the checks of `plan`.

    Launches `plan.instances` instances from its unpacked layers (lowest first), one more for each of `plan.variants`
    and one that starts as `older` (for an upgrade), and asks `plan.ready` and `plan.checks` of each; then measures
    `plan.neighbours`. `clock` returns seconds since the epoch. `emulator` is what the machine runs the image's programs
    with ("": nothing, they are its own); then checks, starts and stops may take EMULATION_SLOWDOWN times as long.

    A failed image gives a report that does not pass. Raises EnvironmentLacking when the host cannot run it.
    """
    launcher = as_launcher(sandboxes)
    launcher.refuse(plan)
    started, begun = clock(), time.monotonic()
    questions = ([plan.ready] if plan.ready else []) + list(plan.checks)
    instances: tuple[InstanceReport, ...] = ()
    neighbours: tuple[NeighbourFigures, ...] = ()
    if questions and plan.instances > 0:
        roles = list(_roles(image, lowers, plan, older))
        with task(progress, "smoke", image.name, total=len(roles) * len(questions)) as running, launcher.opened():
            slowdown = EMULATION_SLOWDOWN if emulator else 1
            paced = _with_longer_deadlines(plan, slowdown)
            instances = _side_by_side(_SmokeRun(paced, launcher, running, holding, slowdown), roles)
        if plan.neighbours is not None:
            own = require_own_sandboxes(launcher, "'smoke.neighbours'")
            neighbours = measure_neighbours(image, lowers, paced, sandboxes=own, progress=progress, slowdown=slowdown)
    return SmokeReport(
        image=image.digest,
        plan=plan_digest(plan),
        runtime=str(launcher),
        instances=instances,
        started=int(started),
        took=round((time.monotonic() - begun) * 1000),
        failure=_failure(plan, questions, instances),
        neighbours=neighbours,
        asked=plan,
        config=image.config,
        older=Older(older[0].digest, older[0].config) if older is not None else None,
        emulator=emulator,
    )


def _with_longer_deadlines(plan: SmokePlan, slowdown: int) -> SmokePlan:
    """Return the plan with an emulated image's deadlines; the report has the recipe's."""

    def longer(check: Check) -> Check:
        return replace(check, within=check.within * slowdown)

    ready = longer(plan.ready) if plan.ready else None
    return replace(plan, ready=ready, checks=tuple(map(longer, plan.checks)))


def _roles(
    image: Image, lowers: Sequence[Path], plan: SmokePlan, older: UnpackedImage | None
) -> Iterator[InstanceRole]:
    now = (image, lowers)
    for number in range(1, plan.instances + 1):
        yield InstanceRole(f"{image.name}-{number}", (now,))
    for variant in plan.variants:
        user = f"{random.choice(_ARBITRARY)}:0" if variant is Variant.ARBITRARY_UID else ""  # noqa: S311
        label = f"{variant}, as {user}" if user else str(variant)
        yield InstanceRole(f"{image.name}-{variant}", (now,), label=label, user=user, variant=variant)
    if older is not None:
        yield InstanceRole(f"{image.name}-upgrade", (older, now), label=f"upgrade from {older[0].digest}")


def _side_by_side(smoke_run: _SmokeRun, roles: Sequence[InstanceRole]) -> tuple[InstanceReport, ...]:
    with ThreadPoolExecutor(max_workers=len(roles), thread_name_prefix="smoke") as pool:
        futures = [pool.submit(InstanceLifecycle(role, smoke_run.context()).play) for role in roles]
        try:
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt:
                # While an instance is held, Ctrl-C releases it.
                if smoke_run.holding is None or not smoke_run.holding.let_go():
                    raise
                wait(futures)
            return _results(futures)
        except BaseException:
            # One raised, or the person interrupted: the others need not wait for their deadlines.
            smoke_run.give_up()
            raise


def _results(futures: Sequence[Future[InstanceReport]]) -> tuple[InstanceReport, ...]:
    return tuple(future.result() for future in futures if future.done())


def _failure(plan: SmokePlan, questions: Sequence[Check], instances: Sequence[InstanceReport]) -> str:
    if not questions:
        return NOTHING_ASKED
    if not instances:
        return NOTHING_LAUNCHED
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
            return f"limits not enforced, but required by the recipe: {', '.join(loose)}"
    happened = [
        f"{instance.name}: {instance.happened}"
        for instance in instances
        if instance.happened and not all(check.passed for check in instance.checks)
    ]
    return " | ".join(happened)


@dataclass(slots=True)
class _SmokeRun:
    plan: SmokePlan
    launcher: Launcher
    running: Task
    holding: FailureHold | None
    slowdown: int
    _living: list[LaunchedInstance] = field(default_factory=list)
    _given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def context(self) -> InstanceContext:
        """Return the context that each instance is tested in."""

        def advance() -> None:
            self.running.advance(1)

        return InstanceContext(self.plan, self.launcher, self.known, advance, self.hold, self.slowdown)

    def hold(self, instance: LaunchedInstance, results: Sequence[CheckResult]) -> None:
        """Keep a failed instance up while the person looks at it."""
        if self.holding is not None and not self._given_up:
            self.holding.hold(instance, results)

    def give_up(self) -> None:
        """Kill all instances, and those that start later, so that no check waits any longer."""
        with self._lock:
            self._given_up = True
            for instance in self._living:
                instance.kill()

    @contextmanager
    def known(self, instance: LaunchedInstance) -> Iterator[None]:
        """Register an instance during the block, so that `give_up` kills it."""
        with self._lock:
            self._living.append(instance)
            if self._given_up:
                instance.kill()
        try:
            yield
        finally:
            with self._lock:
                self._living.remove(instance)
