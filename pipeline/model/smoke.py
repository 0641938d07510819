"""What is asked of a running image, and what it answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pipeline.digest import Digest


@dataclass(frozen=True, slots=True)
class Limits:
    """What one instance may use. `milli_cpus`: thousandths of a core; `memory`: bytes, swap included;
    `pids`: processes and threads; `bandwidth`: bits per second each way; `open_files`: descriptors per
    process; `tmpfs`: bytes of each scratch file system. None: no limit was asked for. `enforce`: a limit that
    the kernel did not take fails the run."""

    milli_cpus: int | None = None
    memory: int | None = None
    pids: int | None = None
    bandwidth: int | None = None
    open_files: int | None = None
    tmpfs: int = 64 << 20
    enforce: bool = False


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a command or a probe must show. Patterns are regular expressions searched for in the text."""

    exit_code: int | None = 0
    stdout: str | None = None
    stderr: str | None = None
    stdout_is: str | None = None


class CheckKind(StrEnum):
    """How a check asks."""

    COMMAND = "command"
    PORT = "port"
    LOG = "log"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Check:
    """One question. Times are milliseconds.

    By `kind`: COMMAND runs `command` in the instance (with `stdin`, as `user`) until it meets `expect` or
    `within` passes; PORT connects to `port`, sends `send` if given, and searches the answer for
    `expect.stdout`; LOG searches the instance's output for `pattern`; STOP sends the image's stop signal and
    expects the end within `within` with `expect.exit_code`. `place` is its `file:line`.
    """

    name: str
    kind: CheckKind
    within: int
    expect: Expectation = Expectation()
    command: tuple[str, ...] = ()
    stdin: str = ""
    user: str = ""
    port: int = 0
    send: str = ""
    pattern: str = ""
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SmokePlan:
    """All that is asked of an image. `ready` is asked first of every instance, then `checks` in order."""

    ready: Check | None = None
    checks: tuple[Check, ...] = ()
    limits: Limits = Limits()
    instances: int = 1


@dataclass(frozen=True, slots=True)
class LimitReading:
    """A limit as asked for and as read back from the kernel. `enforced` False: the kernel did not take it."""

    name: str
    asked: int
    read: int | None
    enforced: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check of one instance came to. `took` in milliseconds."""

    name: str
    passed: bool
    took: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One launched instance: its answers, its limits as read back, and what it used.

    `peak_memory` bytes, `cpu_time` microseconds, `throttled_time` microseconds, `peak_pids` a count or
    None where the kernel does not tell, `oom_kills` a count, `exit_code` None if it was still running.
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


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """The verdict on one image, by digest. `plan` is the digest of what was asked, `runtime` e.g.
    `runc 1.1.5`, `started` seconds since the epoch, `took` milliseconds."""

    image: Digest
    plan: Digest
    runtime: str
    instances: tuple[InstanceReport, ...]
    started: int
    took: int
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Did every check of every instance pass, and was there something to check?"""
        return (
            not self.failure
            and bool(self.instances)
            and all(instance.checks and all(check.passed for check in instance.checks) for instance in self.instances)
        )
