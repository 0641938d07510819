"""Data classes for a smoke report: each instance's answers, limits and usage."""

from __future__ import annotations

from dataclasses import field

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import CheckAnswer, NoAnswer
from pipeline.model.image import ImageConfig
from pipeline.model.limit import LimitReading
from pipeline.model.smoke import SmokePlan, Variant

UNRECORDED = NoAnswer("no answer was recorded")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check of one instance.

    `took` in milliseconds. `passed` and `detail` are the verdict when it was asked; `answer` is what was judged, and
    can be judged again.
    """

    name: str
    passed: bool
    took: int
    detail: str = ""
    answer: CheckAnswer = UNRECORDED


@dataclass(frozen=True, slots=True)
class LoopbackPort:
    """An exposed TCP port that listened on the loopback only, at `addresses` and `more` others."""

    port: int
    addresses: tuple[str, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One launched instance: its answers, its limits as read back, and what it used.

    `peak_memory` bytes, `cpu_time` microseconds, `throttled_time` microseconds, `peak_pids` a count or
    None where the kernel does not tell, `oom_kills` a count, `exit_code` None if it was still running.
    `role` says what was special about it ("": nothing), `happened` which limits it ran into and whether a signal
    ended it. `measured` is every figure that there is, by name. `variant`, `user` and `upgraded_from` are its role as
    values: how it was launched, as whom ("": the image's user), and which image it was at first. `loopback_ports` were
    seen at its end, and judge nothing; None: they were not looked at, or could not be told.
    """

    name: str
    checks: tuple[CheckResult, ...]
    limits: tuple[LimitReading, ...]
    ready_after: int | None
    exit_code: int | None
    peak_memory: int | None
    cpu_time: int | None
    throttled_time: int | None
    peak_pids: int | None
    oom_kills: int | None
    log: str = ""
    role: str = ""
    happened: str = ""
    measured: tuple[tuple[str, int], ...] = ()
    variant: Variant | None = None
    user: str = ""
    upgraded_from: Digest | None = None
    loopback_ports: tuple[LoopbackPort, ...] | None = None


@dataclass(frozen=True, slots=True)
class NeighbourFigures:
    """Measurements of the neighbours while one instance misbehaves (`misbehaviour`).

    Latencies in microseconds: the median and the 99th percentile, before (`quiet_…`) and meanwhile. `asked` answers, of
    which `failed` did not come or were wrong. `effect` is the measured effect of the misbehaviour; `detail` says why it
    did not pass.
    """

    misbehaviour: str
    passed: bool
    asked: int
    failed: int
    quiet_p50: int
    quiet_p99: int
    p50: int
    p99: int
    effect: str = ""
    detail: str = ""
    quiet_asked: int = 0
    quiet_failed: int = 0


@dataclass(frozen=True, slots=True)
class Older:
    """The image that upgrading started from."""

    digest: Digest
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """The report of a smoke test of one image, by digest.

    `plan` is the digest of what was asked (`asked`), `config` what the image says of itself, `older` the image that
    upgrading started from. `runtime` e.g. `runc 1.1.5`, `started` seconds since the epoch, `took` milliseconds.
    `emulator` e.g. `qemu-aarch64 7.2.22` if the machine could not run the image's programs by itself.
    """

    image: Digest
    plan: Digest
    runtime: str
    instances: tuple[InstanceReport, ...]
    started: int
    took: int
    failure: str = ""
    neighbours: tuple[NeighbourFigures, ...] = ()
    asked: SmokePlan = field(default_factory=SmokePlan)
    config: ImageConfig = field(default_factory=lambda: ImageConfig("", 0))
    older: Older | None = None
    emulator: str = ""

    @property
    def execution(self) -> str:
        """The runtime that the image was tested under, with its emulator if there was one."""
        return f"{self.runtime}, emulated by {self.emulator}" if self.emulator else self.runtime

    @property
    def problems(self) -> tuple[str, ...]:
        """The reasons why it does not pass.

        The recorded answers are judged again (`pipeline.model.report_verdict`).
        """
        # Here and not above, because judging needs the types of this module.
        from pipeline.model.report_verdict import report_problems

        return report_problems(self)

    @property
    def passed(self) -> bool:
        """True if all was asked that the plan asks, and every recorded answer is right."""
        return not self.problems

    @property
    def claimed(self) -> bool:
        """True if the report itself records no failure.

        If it does not pass all the same, it was edited.
        """
        return (
            not self.failure
            and all(figures.passed for figures in self.neighbours)
            and all(check.passed for instance in self.instances for check in instance.checks)
        )
