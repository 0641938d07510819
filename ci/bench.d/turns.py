"""Measurements of relbuild beside its peers: turns, figures, rows with goals.

A file of this folder that has a `SECTION` is a part of `ci/bench all`. Its `measure` is given a `Session`, does what it
compares in turn (`for turn in session.turns()`), so that what else the machine does meets all of them, and notes
figures. A row compares what belongs to one turn; the median of the turns counts, with the least and the greatest as its
spread.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRROR = Path(
    os.environ.get("RELBUILD_MIRROR")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "relbuild" / "mirror"
)
OURS = "relbuild"
"""Who it is whose figures are compared with peers' and with the machine's limit."""
THREADS = Path("/proc/self/task")
ORPHAN_SECONDS = 5.0
"""That a process gets to end after the command that started it has ended."""
_PR_SET_CHILD_SUBREAPER = 36
SMALL_PART, SHORT = 0.1, 4
"""Goals below it, and with more characters, are written as parts, 1/25 and 1/7, where they are such."""
SAID = 1000
"""Characters of a failed command's output that are shown."""
SHOWN = 5
"""Words of a failed command that are shown."""
COMMAND_SECONDS = 1800.0
"""That one command gets, so that a run that nobody watches ends: a cold mirror takes the longest, some minutes."""
SECONDS, CPU_SECONDS, BYTES, MIB, RATIO, SHARE = "s", "CPU s", "bytes", "MiB", "×", "share"


class BenchFailed(Exception):
    """Something that was to be measured failed, or cannot run here; the message says what."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row is to reach: at most or at least so much."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether a value reaches it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        bound, part = f"{self.bound:g}", round(1 / self.bound) if 0 < self.bound < 1 else 0
        if math.isclose(part * self.bound, 1) and (len(bound) > SHORT or self.bound < SMALL_PART):
            bound = f"1/{part}"
        return f"{'≥' if self.at_least else '≤'} {bound}"


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of somebody's doing something: a value of each turn."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle of the turns."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest of the turns."""
        return min(self.values)

    @property
    def greatest(self) -> float:
        """The largest of the turns."""
        return max(self.values)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what is compared, the turns' figures, the goal.

    `limit` is what the figure would be if relbuild took no longer than the machine's raw limit, measured in the same
    turns.
    """

    name: str
    figure: Figure
    goal: Goal | None = None
    limit: Figure | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is none."""
        return None if self.goal is None else self.goal.met(self.figure.median)

    @property
    def beyond_machine(self) -> bool:
        """Whether the goal is missed at the machine's raw limit, as measured in the same turns."""
        return self.goal is not None and self.limit is not None and not self.goal.met(self.limit.median)


@dataclass(frozen=True, slots=True)
class Curve:
    """How something grows: a value (the least of the turns) at each size."""

    name: str
    along: str
    unit: str
    points: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Session:
    """One section's run: how many turns, where to work, and what was found.

    `settings` are words that a section may look at, such as the product. `warmed_up` says whether a turn that did not
    count came first.
    """

    folder: Path
    count: int
    settings: Mapping[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    warmed_up: bool = True

    def turns(self, *, warm_up: bool = True, most: int | None = None) -> Iterator[int]:
        """Yield 0 for a turn that warms up, whose figures are dropped, and then at most `most` turns that count."""
        began, self.warmed_up = time.monotonic(), warm_up
        count = self.count if most is None else min(self.count, most)
        for turn in range(0 if warm_up else 1, count + 1):
            if turn == 1 and warm_up:
                self.figures.clear()
            yield turn
            print(f"    turn {turn} of {count}: {time.monotonic() - began:.1f} s", file=sys.stderr)
            began = time.monotonic()

    def record(self, who: str, what: str, value: float, unit: str = SECONDS) -> float:
        """Note a value of this turn."""
        known = self.figures.setdefault(what, {}).get(who)
        self.figures[what][who] = Figure((*(known.values if known else ()), value), unit)
        return value

    def take(self, who: str, what: str, act: Callable[[], object]) -> float:
        """Do it; note the seconds that it took, and the processor's that it and its ended children had."""
        before = children()
        processor, began = used(), time.monotonic()
        act()
        took = time.monotonic() - began
        _reap(children() - before)
        self.record(who, f"{what}, CPU", used() - processor, CPU_SECONDS)
        return self.record(who, what, took)

    def of(self, who: str, what: str) -> tuple[float, ...]:
        """Return the figures of all turns. Raises BenchFailed if there are none."""
        try:
            return self.figures[what][who].values
        except KeyError:
            raise BenchFailed(f"nothing was measured of {who}: {what}") from None

    def row(
        self,
        name: str,
        values: Sequence[float],
        goal: Goal | None = None,
        *,
        unit: str = RATIO,
        limit: Sequence[float] = (),
    ) -> None:
        """Add a line of the table."""
        self.rows.append(Row(name, Figure(tuple(values), unit), goal, Figure(tuple(limit), unit) if limit else None))

    def ratio(
        self,
        name: str,
        over: tuple[str, str],
        under: tuple[str, str],
        goal: Goal | None = None,
        *,
        limit: tuple[str, str] | None = None,
    ) -> None:
        """Add a line of the table: one (who, what) divided by another, turn by turn.

        `limit` is the (who, what) that stands in relbuild's place in the same ratio at the machine's raw limit.
        """
        best: Sequence[float] = ()
        if limit is not None:
            best = quotients(*(self.of(*(limit if one[0] == OURS else one)) for one in (over, under)))
        self.row(name, quotients(self.of(*over), self.of(*under)), goal, limit=best)

    def curve(self, name: str, along: str, unit: str, points: Sequence[tuple[float, float]]) -> None:
        """Add a curve."""
        self.curves.append(Curve(name, along, unit, tuple(points)))

    def remark(self, text: str) -> None:
        """Say once what a reader of the figures must know, such as what a peer does not do."""
        if text not in self.remarks:
            self.remarks.append(text)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of `ci/bench all`: its name on the command line, what it shows, and what does it."""

    name: str
    title: str
    measure: Callable[[Session], None]
    mirror: bool = True
    """Whether it needs the development mirror."""


def used() -> float:
    """Return the seconds of processor that this process and its ended children have had."""
    found = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in found)


def adopt_orphans() -> None:
    """Become the parent of what commands leave behind when they end, whose processor time counts too (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> frozenset[int]:
    """Return the processes whose parent this is. A thread that ends meanwhile hands its own to another."""
    found: set[int] = set()
    for task in THREADS.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return frozenset(found)


def _reap(orphans: frozenset[int]) -> None:
    """Wait for what was left behind, so that it is counted; not for long."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    for pid in orphans:
        with suppress(ChildProcessError):
            while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
                time.sleep(0.01)


def quotients(over: Sequence[float], under: Sequence[float]) -> tuple[float, ...]:
    """Divide the figures of each turn."""
    return tuple(a / b for a, b in zip(over, under, strict=True))


def differences(these: Sequence[float], those: Sequence[float]) -> tuple[float, ...]:
    """Subtract the figures of each turn."""
    return tuple(a - b for a, b in zip(these, those, strict=True))


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through points, and by how much of their greatest value a point is away from it at most."""

    start: float
    slope: float
    off: float


def straight(points: Sequence[tuple[float, float]]) -> Line:
    """Fit a line by least squares. There must be two sizes at least."""
    along, values = [x for x, _ in points], [y for _, y in points]
    slope, start = statistics.linear_regression(along, values)
    off = max(abs(y - (start + slope * x)) for x, y in points) / max(1e-9, *map(abs, values))
    return Line(start, slope, off)


def run(*argv: str | Path, **more: object) -> str:
    """Run a command to its end and return its output. Raises BenchFailed with all that it said."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS, **more)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        raise BenchFailed(f"{words[0]} is not here: {error}") from None
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"{Path(words[0]).name} did not end within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-SAID:]
        shown = " ".join([Path(words[0]).name, *words[1:SHOWN]])
        raise BenchFailed(f"{shown} … ended with {done.returncode}: {said}")
    return str(done.stdout)


def relbuild(*words: str | Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    """Run a command of this checkout's relbuild as a whole process and return its output."""
    # Compiled files are written, whatever the environment says: an installed program has them.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env = {**inherited, "PYTHONPATH": str(ROOT), **(environment or {})}
    return run(sys.executable, "-m", "pipeline", *words, env=env, cwd=cwd)


def peer(name: str) -> Path:
    """Return a program of `ci/peers bench`."""
    found = Path(run(ROOT / "ci" / "peers", "bench").strip()) / name
    if not found.exists():
        raise BenchFailed(f"ci/peers brought no {name}")
    return found
