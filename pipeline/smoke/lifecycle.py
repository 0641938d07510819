"""Run one instance of a smoke test: start, wait until ready, check, restart, stop, report.

It is restarted where the plan says so, on the same volumes, from the same image or, in an upgrade, the new one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path

from pipeline.errors import EnvironmentLacking, RelbuildError, SmokeError, VerificationError
from pipeline.escaping import escape_invisible
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import CheckAnswer, Effect, NoAnswer
from pipeline.model.checks import CheckKind, MountsAnswer, declaration, judge, judge_mounts
from pipeline.model.checks.restart_check import Restart, RestartAnswer
from pipeline.model.checks.stop_check import DECLARATION as STOP
from pipeline.model.checks.stop_check import StopAnswer, stopped
from pipeline.model.image import Image
from pipeline.model.limit import LimitReading
from pipeline.model.probe import Unanswered
from pipeline.model.report import CheckResult, InstanceReport, LoopbackPort
from pipeline.model.smoke import Check, SmokePlan, Variant
from pipeline.model.smoke_questions import (
    MOUNTS_QUESTION,
    UPGRADING,
    CheckPhase,
    check_phases,
)
from pipeline.sandbox import (
    KeptVolumes,
    LaunchedInstance,
    Launcher,
    explain_exit,
    require_running_programs,
)
from pipeline.smoke.instance_probe import InstanceProbe, describe_exit
from pipeline.smoke.log_lines import SKIPPED, failure_mark, shorten_log, with_marks
from pipeline.smoke.loopback_ports import find_loopback_ports, looks_at_ports
from pipeline.smoke.probes import run_check
from pipeline.smoke.procfs import writable_mounts

_STOP_TIMEOUT = 10.0
"""Seconds that an instance that passed gets to end where no check stops it: what `docker stop` gives. One that
failed is killed at once."""

_STARTED_AFTER = 1.0
"""Seconds from its start in which an instance must not end by itself, where the plan has no `ready`: most that cannot
start end at once, but after checks that are answered in a thousandth of a second."""

LOG_SHOWN = 256 << 10
"""Characters of an instance's log that go into the report."""


_PEAKS = frozenset({"peak_memory", "peak_pids"})

UnpackedImage = tuple[Image, Sequence[Path]]
"""An image and its unpacked layers, the lowest first."""


@dataclass(frozen=True, slots=True)
class InstanceRole:
    """The role of one instance in a smoke test: its images, and its user or variant.

    `images` are those of its first, second … start (the last one for all later ones), `user` the user that it runs as
    instead of the image's.
    """

    name: str
    images: tuple[UnpackedImage, ...]
    label: str = ""
    user: str = ""
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class InstanceContext:
    """The context in which an instance is tested: its plan, launcher and callbacks.

    `known` is entered while an instance runs, `asked` is called after each answer, `hold` with an instance that has
    failed and still runs, before it is ended. `slowdown`: how many times longer an emulated image may take to stop.
    """

    plan: SmokePlan
    launcher: Launcher
    known: Callable[[LaunchedInstance], contextlib.AbstractContextManager[None]]
    asked: Callable[[], None]
    hold: Callable[[LaunchedInstance, Sequence[CheckResult]], None]
    slowdown: int = 1


@dataclass(slots=True)
class InstanceLifecycle:
    """One instance of a smoke test, run from its first start to its report."""

    role: InstanceRole
    context: InstanceContext
    _results: list[CheckResult] = field(default_factory=list)
    _limits: tuple[LimitReading, ...] = ()
    _ready_after: int | None = None
    _exit_code: int | None = None
    _measured: dict[str, int] = field(default_factory=dict)
    _happened: list[str] = field(default_factory=list)
    _logs: list[str] = field(default_factory=list)
    _marks: list[tuple[int, str]] = field(default_factory=list)
    """The marks of failed checks in the log of this start."""
    _begun: float = 0.0
    """Time at which this start began, on the monotonic clock."""
    _launched: float = 0.0
    """Time at which its first process was there."""
    _unasked: str = ""
    _ended: int | None = None
    _loopback_ports: tuple[LoopbackPort, ...] | None = None

    def play(self) -> InstanceReport:
        """Launch the instance, ask all its checks, and return its report.

        Raises EnvironmentLacking, VerificationError `launcher-image`.
        """
        starts = check_phases(self.context.plan.checks, upgrade=len(self.role.images) > 1)
        with contextlib.ExitStack() as closing:
            volumes: KeptVolumes | None = None
            if len(starts) > 1:
                volumes = closing.enter_context(self.context.launcher.volumes(self.role.name))
            for number, stage in enumerate(starts):
                self._stage(number, stage, starts[number + 1 :], volumes)
        return self._report()

    # --- one start -----------------------------------------------------------------------------

    def _stage(self, number: int, stage: CheckPhase, later: Sequence[CheckPhase], volumes: KeptVolumes | None) -> None:
        if self._unasked:
            self._skip(stage)
            return
        image, lowers = self.role.images[min(number, len(self.role.images) - 1)]
        begun = self._begun = time.monotonic()
        self._marks = []
        limits, name, user = self.context.plan.limits, self.role.name, self.role.user
        try:
            with (
                self.context.launcher.launch(image, lowers, limits, name=name, user=user, volumes=volumes) as instance,
                self.context.known(instance),
            ):
                self._run_started(instance, image, stage, later, begun)
        except (EnvironmentLacking, VerificationError):
            raise  # Another image than the tested one is no failure of the tested one.
        except RelbuildError as error:
            name = stage.restart.name if stage.restart else "starts"
            self._answered(_unanswered(name, str(error), _milliseconds(begun)))
            self._unasked = f"{SKIPPED}the instance did not start"
            self._skip(replace(stage, restart=None), quietly=stage.restart is None)

    def _run_started(
        self, instance: LaunchedInstance, image: Image, stage: CheckPhase, later: Sequence[CheckPhase], begun: float
    ) -> None:
        self._launched = time.monotonic()
        self._limits = self._limits or instance.readings()
        self._wait_until_ready(instance, image, stage.restart, begun)
        if self.context.plan.ready is not None:
            self._require_programs(instance, image)
        for check in stage.checks:
            if not later and declaration(check.kind).effect is Effect.ENDS:
                self._look_at_ports(instance, image)
            self._ask(check, instance, image)
        if not later:
            self._look_at_ports(instance, image)
        self._require_programs(instance, image)
        told = bool(later) and not self._unasked
        if told:
            self._end_for_restart(later[0].restart or UPGRADING, instance, image)
        else:
            self._require_alive(instance)
        self._finish(instance, image, last=not later, told=told)

    def _wait_until_ready(self, instance: LaunchedInstance, image: Image, restart: Check | None, begun: float) -> None:
        ready = self.context.plan.ready
        result = self._asked(ready, instance, image) if ready is not None else None
        took = _milliseconds(begun)
        back = result is None or result.passed
        if restart is not None:
            self._answered(self._restarted(restart, result, image, took))
            self._measured.setdefault("ready_again_after_ms", took)
        elif result is not None:
            self._answered(result)
            self._ready_after = took if result.passed else None
        if not back:
            self._unasked = f"{SKIPPED}the instance was not ready"
        elif self.role.variant is Variant.READ_ONLY and restart is None:
            self._answered(_read_only(instance, image))

    def _require_programs(self, instance: LaunchedInstance, image: Image) -> None:
        """Add a failed result if a process runs a program of another architecture than the image's."""
        if self._unasked:
            return
        try:
            require_running_programs(instance, image.config.architecture)
        except SmokeError as error:
            self._answered(_unanswered("starts", str(error)))
            self._unasked = f"{SKIPPED}a program is for another architecture"

    def _require_alive(self, instance: LaunchedInstance) -> None:
        """Add a failed result if the instance ended by itself, whatever its checks found.

        One without `ready` has not shown yet that it can run: it is waited for until `_STARTED_AFTER`.
        """
        if self._unasked:
            return
        if self.context.plan.ready is None and all(result.passed for result in self._results):
            instance.wait(max(0.0, self._launched + _STARTED_AFTER * self.context.slowdown - time.monotonic()))
        if not instance.alive:
            self._answered(_unanswered("starts", f"the instance ended by itself with {describe_exit(instance)}"))
            self._unasked = f"{SKIPPED}the instance had ended"

    def _ask(self, check: Check, instance: LaunchedInstance, image: Image) -> None:
        if self._unasked:
            self._answered(_unanswered(check.name, self._unasked))
            return
        self._answered(self._asked(check, instance, image))
        if declaration(check.kind).effect is Effect.ENDS:
            self._unasked = f"{SKIPPED}the instance was already stopped"

    def _asked(self, check: Check, instance: LaunchedInstance, image: Image) -> CheckResult:
        asked = time.monotonic()
        try:
            result = run_check(check, instance, image)
        except EnvironmentLacking:
            raise
        except RelbuildError as error:
            result = _unanswered(check.name, str(error))
        if not result.passed:
            failed = _milliseconds(self._begun)
            mark = failure_mark(check.name, result.detail, asked=failed - _milliseconds(asked), failed=failed)
            self._marks.append((len(instance.log), mark))
        return result

    def _look_at_ports(self, instance: LaunchedInstance, image: Image) -> None:
        """Note the exposed ports that listen on the loopback only.

        That is before a check ends the instance, or after all. Nothing is noted of one that has ended, or where the
        launcher cannot tell.
        """
        if not self._unasked and looks_at_ports(self.context.plan, image.config):
            with contextlib.suppress(Unanswered):
                self._loopback_ports = find_loopback_ports(image.config, InstanceProbe(instance, image).listeners())

    def _restarted(self, restart: Check, ready: CheckResult | None, image: Image, took: int) -> CheckResult:
        assert isinstance(restart.subject, Restart)
        answer = RestartAnswer(restart.subject, self._ended, ready.answer if ready else None)
        wrong = judge(restart, answer, image.config, self.context.plan.ready)
        if ready is not None and not ready.passed:
            wrong = f"not ready after the restart: {ready.detail}"
        return CheckResult(restart.name, not wrong, took, wrong, answer)

    def _end_for_restart(self, restart: Check, instance: LaunchedInstance, image: Image) -> None:
        """End the instance in the way of the restart check `restart`: by its stop signal or SIGKILL."""
        begun = time.monotonic()
        answer: CheckAnswer
        if restart.subject is Restart.AFTER_KILL and instance.alive:
            answer = StopAnswer("SIGKILL", instance.kill())
        else:
            try:
                answer = stopped(restart, InstanceProbe(instance, image), image.config.stop_signal)
            except Unanswered as error:
                answer = NoAnswer(str(error))
        self._measured.setdefault("stopped_after_ms", _milliseconds(begun))
        # The exit code is for a `stop` check to judge; here it only has to end.
        self._ended = answer.exit_code if isinstance(answer, StopAnswer) else None
        if self._ended is None:
            asked = Check(restart.name, CheckKind(STOP.name), restart.within, signal=image.config.stop_signal)
            wrong = judge(asked, answer, image.config)
            self._answered(CheckResult(restart.name, False, _milliseconds(begun), wrong, answer))
            self._unasked = f"{SKIPPED}the instance was not restarted"

    def _finish(self, instance: LaunchedInstance, image: Image, *, last: bool, told: bool) -> None:
        good = all(result.passed for result in self._results)
        if not good and instance.alive:
            self.context.hold(instance, self._results)
        ended = not instance.alive
        self._exit_code = instance.exit_code
        if not ended:
            if good and last:
                self._exit_code = instance.stop(image.config.stop_signal, _STOP_TIMEOUT * self.context.slowdown)
            instance.kill()
        usage = instance.usage()
        for key, value in (*asdict(usage).items(), *usage.counted):
            if isinstance(value, int):
                before = self._measured.get(key, 0)
                self._measured[key] = max(before, value) if key in _PEAKS else before + value
        # The end of an instance that was stopped or killed for a check is judged by that check.
        happened = explain_exit(usage, self._exit_code if ended and not good and not told else None)
        if happened and happened not in self._happened:
            self._happened.append(happened)
        self._logs.append(with_marks(instance.log, self._marks).decode(errors="replace"))

    # --- the report ----------------------------------------------------------------------------

    def _answered(self, result: CheckResult) -> None:
        self._results.append(result)
        self.context.asked()

    def _skip(self, stage: CheckPhase, *, quietly: bool = False) -> None:
        """Record the checks that will not be asked as unanswered; none if `quietly`."""
        if not quietly:
            told = {result.name for result in self._results}
            restart = (stage.restart,) if stage.restart and stage.restart.name not in told else ()
            for check in (*restart, *stage.checks):
                self._answered(_unanswered(check.name, self._unasked))

    def _report(self) -> InstanceReport:
        measured = self._measured.get
        return InstanceReport(
            name=self.role.name,
            checks=tuple(self._results),
            limits=self._limits,
            ready_after=self._ready_after,
            exit_code=self._exit_code,
            peak_memory=measured("peak_memory"),
            cpu_time=measured("cpu_time"),
            throttled_time=measured("throttled_time"),
            peak_pids=measured("peak_pids"),
            oom_kills=measured("oom_kills"),
            log=escape_invisible(shorten_log("[relbuild: restarted]\n".join(self._logs), LOG_SHOWN)),
            role=self.role.label,
            happened="; ".join(self._happened),
            measured=tuple(sorted(self._measured.items())),
            variant=self.role.variant,
            user=self.role.user,
            upgraded_from=self.role.images[0][0].digest if len(self.role.images) > 1 else None,
            loopback_ports=self._loopback_ports,
        )


def _read_only(instance: LaunchedInstance, image: Image) -> CheckResult:
    """Return the result of the check that only volumes and scratch file systems are writable."""
    if not instance.alive:
        return _unanswered(MOUNTS_QUESTION, f"the instance ended with {describe_exit(instance)}")
    try:
        answer = MountsAnswer(writable_mounts(instance))
    except OSError:
        return _unanswered(MOUNTS_QUESTION, f"the instance ended with {describe_exit(instance)}")
    wrong = judge_mounts(answer, image.config)
    return CheckResult(MOUNTS_QUESTION, not wrong, 0, wrong, answer)


def _unanswered(name: str, why: str, took: int = 0) -> CheckResult:
    return CheckResult(name, False, took, why, NoAnswer(why))


def _milliseconds(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
