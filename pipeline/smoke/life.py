"""The life of one instance: started, ready, asked, stopped, and where the plan says so started again on the same
volumes, as the same image or as its successor."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.model.image import Image
from pipeline.model.probes import Restart
from pipeline.model.smoke import Check, CheckKind, CheckResult, InstanceReport, LimitReading, SmokePlan, Variant
from pipeline.sandbox import Instance, Station, Volumes, kept_volumes, launch, what_happened
from pipeline.smoke.answer import Answer
from pipeline.smoke.questions import ask, how_it_ended, stop
from pipeline.smoke.sight import writable_mounts

STOPPING = 10.0
"""Seconds that a good instance gets to end when nothing asks how it ends: what `docker stop` gives. One that
has failed is killed: nothing would be learnt from waiting."""

LOG_SHOWN = 256 << 10
"""Characters of an instance's log that go into the report: a quarter from its beginning, the rest its end."""

UPGRADING = Check("becomes the new image", CheckKind.RESTART, 30_000, subject=Restart.SAME_DATA)
"""What is done to the old image when no check restarts it."""

_SCRATCH = ("/dev", "/proc", "/run", "/tmp")  # noqa: S108 - in the container
"""Where every instance may write."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_PEAKS = frozenset({"peak_memory", "peak_pids"})

Unpacked = tuple[Image, Sequence[Path]]
"""An image and its unpacked layers, the lowest first."""


@dataclass(frozen=True, slots=True)
class Role:
    """Which instance it is, and what is special about it: `images` are what it is from start to start (the last
    one stays), `user` whom it runs as instead of the image's user."""

    name: str
    images: tuple[Unpacked, ...]
    label: str = ""
    user: str = ""
    variant: Variant | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a life needs of its surroundings. `known` is entered while an instance runs, `asked` is told of each
    answer, `hold` of an instance that has failed and still runs, before it is ended."""

    plan: SmokePlan
    station: Station
    known: Callable[[Instance], contextlib.AbstractContextManager[None]]
    asked: Callable[[], None]
    hold: Callable[[Instance, Sequence[CheckResult]], None]


@dataclass(frozen=True, slots=True)
class _Stage:
    """One start: the check that restarts (None: the first start), and what is asked then."""

    restart: Check | None
    checks: tuple[Check, ...]


@dataclass(slots=True)
class Life:
    """One role played from beginning to end."""

    role: Role
    around: Surroundings
    _results: list[CheckResult] = field(default_factory=list)
    _limits: tuple[LimitReading, ...] = ()
    _ready_after: int | None = None
    _exit_code: int | None = None
    _measured: dict[str, int] = field(default_factory=dict)
    _happened: list[str] = field(default_factory=list)
    _logs: list[str] = field(default_factory=list)
    _unasked: str = ""

    def play(self) -> InstanceReport:
        """Launch the instance, ask it everything, and tell. Raises EnvironmentLacking."""
        stages = _stages(self.around.plan.checks, upgrade=len(self.role.images) > 1)
        with contextlib.ExitStack() as closing:
            volumes = None
            if len(stages) > 1:
                volumes = closing.enter_context(kept_volumes(self.around.station, self.role.name))
            for number, stage in enumerate(stages):
                self._stage(number, stage, stages[number + 1 :], volumes)
        return self._report()

    # --- one start -----------------------------------------------------------------------------

    def _stage(self, number: int, stage: _Stage, later: Sequence[_Stage], volumes: Volumes | None) -> None:
        if self._unasked:
            self._skip(stage)
            return
        image, lowers = self.role.images[min(number, len(self.role.images) - 1)]
        config = replace(image.config, user=self.role.user) if self.role.user else image.config
        begun = time.monotonic()
        plan, station = self.around.plan, self.around.station
        try:
            with (
                launch(config, lowers, plan.limits, station=station, name=self.role.name, volumes=volumes) as instance,
                self.around.known(instance),
            ):
                self._lived(instance, image, stage, later, begun)
        except EnvironmentLacking:
            raise
        except RelbuildError as error:
            name = stage.restart.name if stage.restart else "starts"
            self._answered(CheckResult(name, False, _milliseconds(begun), str(error)))
            self._unasked = "not asked: the instance did not start"
            self._skip(replace(stage, restart=None), quietly=stage.restart is None)

    def _lived(self, instance: Instance, image: Image, stage: _Stage, later: Sequence[_Stage], begun: float) -> None:
        self._limits = self._limits or instance.readings()
        self._wait_until_ready(instance, image, stage.restart, begun)
        for check in stage.checks:
            self._ask(check, instance, image)
        if later and not self._unasked:
            self._end_for(later[0].restart or UPGRADING, instance, image)
        self._finish(instance, image, last=not later)

    def _wait_until_ready(self, instance: Instance, image: Image, restart: Check | None, begun: float) -> None:
        ready = self.around.plan.ready
        result = CheckResult("ready", True, 0)
        if ready is not None:
            result = self._asked(ready, instance, image)
        took = _milliseconds(begun)
        if restart is not None:
            detail = "" if result.passed else f"not ready when started again: {result.detail}"
            self._answered(CheckResult(restart.name, result.passed, took, detail))
            self._measured.setdefault("ready_again_after_ms", took)
        elif ready is not None:
            self._answered(result)
            self._ready_after = took if result.passed else None
        if not result.passed:
            self._unasked = "not asked: the instance was not ready"
        elif self.role.variant is Variant.READ_ONLY and restart is None:
            self._answered(_read_only(instance, image))

    def _ask(self, check: Check, instance: Instance, image: Image) -> None:
        if self._unasked:
            self._answered(CheckResult(check.name, False, 0, self._unasked))
            return
        self._answered(self._asked(check, instance, image))
        if check.kind is CheckKind.STOP:
            self._unasked = "not asked: the instance was stopped before"

    def _asked(self, check: Check, instance: Instance, image: Image) -> CheckResult:
        try:
            return ask(check, instance, image)
        except EnvironmentLacking:
            raise
        except RelbuildError as error:
            return CheckResult(check.name, False, 0, str(error))

    def _end_for(self, restart: Check, instance: Instance, image: Image) -> None:
        """End the instance as the check that restarts it wants."""
        begun = time.monotonic()
        answer = Answer(True)
        if not instance.alive:
            answer = Answer(False, f"the instance had ended before, with {how_it_ended(instance)}")
        elif restart.subject is Restart.AFTER_KILL:
            instance.kill()
        else:
            # How it ends is another question; here it only has to.
            answer = stop(
                replace(restart, expect=replace(restart.expect, exit_code=None)), instance, image.config.stop_signal
            )
        self._measured.setdefault("stopped_after_ms", _milliseconds(begun))
        if not answer.right:
            self._answered(CheckResult(restart.name, False, _milliseconds(begun), answer.detail))
            self._unasked = "not asked: the instance was not started again"

    def _finish(self, instance: Instance, image: Image, *, last: bool) -> None:
        good = all(result.passed for result in self._results)
        if not good and instance.alive:
            self.around.hold(instance, self._results)
        ended = not instance.alive
        self._exit_code = instance.exit_code
        if not ended:
            if good and last:
                self._exit_code = instance.stop(image.config.stop_signal, STOPPING)
            instance.kill()
        usage = instance.usage()
        for key, value in asdict(usage).items():
            if isinstance(value, int):
                before = self._measured.get(key, 0)
                self._measured[key] = max(before, value) if key in _PEAKS else before + value
        # How it ends when it is told to is for the checks to say.
        happened = what_happened(usage, self._exit_code if ended and not good else None)
        if happened and happened not in self._happened:
            self._happened.append(happened)
        self._logs.append(instance.log.decode(errors="replace"))

    # --- the report ----------------------------------------------------------------------------

    def _answered(self, result: CheckResult) -> None:
        self._results.append(result)
        self.around.asked()

    def _skip(self, stage: _Stage, *, quietly: bool = False) -> None:
        """Write down what is not asked any more; nothing (`quietly`) where the image has not started at all."""
        if not quietly:
            told = {result.name for result in self._results}
            restart = (stage.restart,) if stage.restart and stage.restart.name not in told else ()
            for check in (*restart, *stage.checks):
                self._answered(CheckResult(check.name, False, 0, self._unasked))

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
            log=shortened(escaped("[relbuild: started again]\n".join(self._logs))),
            role=self.role.label,
            happened="; ".join(self._happened),
            measured=tuple(sorted(self._measured.items())),
        )


def _stages(checks: Sequence[Check], *, upgrade: bool) -> tuple[_Stage, ...]:
    """The checks, cut where one restarts the instance. An upgrade has a restart in any case: before all."""
    if upgrade and all(check.kind is not CheckKind.RESTART for check in checks):
        return (_Stage(None, ()), _Stage(UPGRADING, tuple(checks)))
    return tuple(_cut(checks))


def _cut(checks: Sequence[Check]) -> Iterator[_Stage]:
    restart: Check | None = None
    asked: list[Check] = []
    for check in checks:
        if check.kind is CheckKind.RESTART:
            yield _Stage(restart, tuple(asked))
            restart, asked = check, []
        else:
            asked.append(check)
    yield _Stage(restart, tuple(asked))


def _read_only(instance: Instance, image: Image) -> CheckResult:
    """Can nothing be written but the volumes and the scratch file systems?"""
    name = "nothing but volumes and scratch space can be written"
    if not instance.alive:
        return CheckResult(name, False, 0, f"the instance ended with {how_it_ended(instance)}")
    allowed = (*_SCRATCH, *image.config.volumes)
    wrong = [
        where
        for where in writable_mounts(instance)
        if not any(f"{where}/".startswith(f"{place.rstrip('/')}/") for place in allowed)
    ]
    return CheckResult(name, not wrong, 0, f"can be written: {', '.join(wrong)}" if wrong else "")


def escaped(text: str) -> str:
    """What an image printed, such that it cannot steer a terminal: control characters appear as `\\x1b`; carriage
    returns before a line's end are left out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def shortened(log: str) -> str:
    """The beginning and the end of a long log."""
    if len(log) <= LOG_SHOWN:
        return log
    head, tail = LOG_SHOWN // 4, LOG_SHOWN - LOG_SHOWN // 4
    return f"{log[:head]}\n[relbuild: {len(log) - LOG_SHOWN} characters left out]\n{log[-tail:]}"


def _milliseconds(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
