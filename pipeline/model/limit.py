"""Data classes that declare a limit: recipe form, setting, reading back, overruns.

A module in `pipeline.model.limits` declares one limit as `LIMIT`. Made from the set of them are the recipe's schema,
the options of `run`, what the sandbox sets and reads back, the report and `enforced-limits` of the gate, the sentence
about overruns, and docs/limits.md. A limit reaches the kernel through `ControlGroup`, `Started` and `Observed`, which
the sandbox fulfils.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import ClassVar, Generic, Protocol, TypeVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.quantities import Form
from pipeline.model.usage import Usage

PAGE_SIZE = 4096
"""Bytes to which the kernel rounds memory."""

_Value = TypeVar("_Value", int, int | None)
"""An integer where there is always a limit, else also None: no limit was asked for."""


@dataclass(frozen=True, slots=True)
class LimitReading:
    """A limit as asked for and as read back from the kernel.

    `enforced` False: the kernel did not take it.
    """

    name: str
    asked: int
    read: int | None
    enforced: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FileSystemSize:
    """A file system of limited size, as the kernel has it.

    `size` None: it is not limited, for the reason `why`.
    """

    path: str
    size: int | None
    inodes: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class LinkRates:
    """Bits per second into the instance and out of it, as the kernel has them.

    `why`: the reason why they are not limited, "" if they are.
    """

    into: int | None = None
    out: int | None = None
    why: str = "the instance has no network link to limit"


@dataclass(frozen=True, slots=True)
class VolumeRates:
    """Bytes per second that the kernel lets through to or from a volume at the most.

    None: any number. `why`: the reason why not all volumes are limited, "" if they are.
    """

    rate: int | None = None
    why: str = "the instance has no volume"


# --- what the sandbox gives ----------------------------------------------------------------------------


class ControlGroup(Protocol):
    """An instance's control group: files by controller, of the host's cgroup version."""

    @property
    def version(self) -> int:
        """1 or 2; 0 where this user may use none."""

    @property
    def limits_swap(self) -> bool:
        """Tell whether this kernel counts swap. (Without, the runtime must not be told to limit it.)"""

    def has(self, controller: str) -> bool:
        """Tell whether this controller can limit containers."""

    def read(self, controller: str, file: str) -> str | None:
        """Text of a file, or None if there is none."""

    def number(self, controller: str, file: str) -> int | None:
        """Number in a file, or None (`max`)."""

    def entry(self, controller: str, file: str, key: str) -> int | None:
        """Number in the line of a file that begins with `key`."""

    def write(self, controller: str, file: str, text: str) -> bool:
        """Write where the file is there and the kernel takes it; False if there is no such file."""


class Started(Protocol):
    """An instance that was just started, for limits that the runtime does not set."""

    @property
    def group(self) -> ControlGroup:
        """Its control group."""

    def throttle(self, rate: int | None) -> None:
        """Hold it to bytes per second to and from each volume; None: only let the kernel count them."""


class Observed(Protocol):
    """A running instance whose limits are read back."""

    @property
    def group(self) -> ControlGroup:
        """Its control group."""

    @property
    def scratch(self) -> FileSystemSize | None:
        """Its scratch file system /tmp."""

    @property
    def volumes(self) -> Sequence[FileSystemSize]:
        """Its volumes."""

    @property
    def link_rates(self) -> LinkRates:
        """Rates of its network link."""

    @property
    def volume_rates(self) -> VolumeRates:
        """Throughput of its volumes."""

    def resource_limit(self, name: str) -> int | None:
        """Hard limit of its first process by the name in /proc/PID/limits, such as `Max open files`."""

    def swap_exists(self) -> bool:
        """Return whether the host has swap space in use."""

    def weightless(self) -> str:
        """Return the reason why shares of control groups do not apply to its disk, or "".

        The disk is the one that it writes to.
        """


# --- how a limit is set --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InResources:
    """Setting by the runtime, as a member of `linux.resources` (runtime-spec, config-linux.md).

    `unasked`: the limit where a recipe asks for none.
    """

    make: Callable[[int, ControlGroup], Mapping[str, object]]
    unasked: int | None = None
    stage: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class AsRlimit:
    """Setting by the runtime, as a resource limit (getrlimit(2)) such as `RLIMIT_NOFILE`.

    `unasked` as in `InResources`.
    """

    kind: str
    unasked: int | None = None
    stage: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class OnLink:
    """Setting by the sandbox, when it makes the instance's link."""

    stage: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class AfterStart:
    """Setting by the sandbox, on a control group whose processes run.

    `apply` gets None where no limit was asked for.
    """

    apply: Callable[[int | None, Started], None]
    stage: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class AsFileSystem:
    """Setting by the sandbox, as the size of file systems that it makes."""

    stage: ClassVar[int] = 4


Setting = InResources | AsRlimit | OnLink | AfterStart | AsFileSystem
"""Ways to set a limit. `stage` is the order in which they happen, and in which limits are reported."""


# --- how an overrun is recognised ----------------------------------------------------------------------


class Severity(IntEnum):
    """Degrees of an overrun, the worst first."""

    KILLED = 0
    REFUSED = 1
    FULL = 2
    DROPPED = 3
    SLOWED = 4


@dataclass(frozen=True, slots=True)
class Overrun:
    """A limit that an instance ran into, in the words of a report."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Counter:
    """The place where the kernel counts how often the limit was hit.

    Controller, file and key by version of control groups; key "": the file has one number and nothing else, as v1's
    `*.failcnt`. `figure` is its name among what was measured.
    """

    figure: str
    v1: tuple[str, str, str]
    v2: tuple[str, str, str]

    def read(self, group: ControlGroup) -> int | None:
        """Count of now."""
        controller, file, key = self.v2 if group.version == 2 else self.v1
        return group.entry(controller, file, key) if key else group.number(controller, file)


def format_times(count: int) -> str:
    """` 3 times`; nothing for once."""
    return "" if count == 1 else f" {count} times"


# --- the declaration -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limit(Generic[_Value]):
    """A limit of one instance.

    `name` is its key in recipes, its name in reports and in `enforced-limits`, and (with `-`) its option of `run`.
    `rank` is its place in documents. `meaning` and `example` are of the reference, `kernel` names there the kernel's
    file or call. `slack` is how far the kernel may round it; `share`: it is a weight, of which more is no weaker limit.
    `option` is the help of `run`'s option; "": it has none. `field` is its member in a plan's JSON, where that is not
    `name`. `controllers` are those that limit it under control groups v1 and v2, and `doctor` what one is needed for
    ("": `doctor` does not check it).
    """

    name: str
    rank: int
    meaning: str
    example: object
    form: Form
    default: _Value
    kernel: str
    set_by: Setting
    read: Callable[[int, Observed], Iterator[LimitReading]]
    overruns: Callable[[Usage], Sequence[Overrun]]
    counter: Counter | None = None
    slack: int = 0
    share: bool = False
    option: str = ""
    field: str = ""
    controllers: tuple[str, str] | None = None
    doctor: str = ""

    @property
    def member(self) -> str:
        """Name of its field in `Limits`."""
        return self.field or self.name

    def controller(self, group: ControlGroup) -> str:
        """Controller that limits it on this machine."""
        v1, v2 = self.controllers or ("", "")
        return v2 if group.version == 2 else v1


def compare_reading(name: str, asked: int, read: int | None, *, slack: int, why: str) -> LimitReading:
    """Compare what was read back with what was asked for.

    A difference below `slack` is rounding.
    """
    if read is None:
        return LimitReading(name, asked, None, False, why)
    close = abs(read - asked) < max(slack, 1)
    return LimitReading(name, asked, read, close, "" if close else f"the kernel has {read}; {why}")


def missing_controller(group: ControlGroup, controller: str) -> str:
    """Reason why a control group does not hold a limit of `controller`."""
    if not group.version:
        return f"the {controller} controller is not delegated to this user"
    if not group.has(controller):
        return f"the {controller} controller is not available"
    return f"the {controller} controller did not accept the limit"


def no_overruns(usage: Usage) -> Sequence[Overrun]:
    """Return none: for a limit whose overruns the kernel does not count."""
    return ()
