"""Compute line plots of a product's figures over time: SVG coordinates, text alternatives.

x is time, in per mille of the plot's width; y is pixels from the top. The scale begins at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import Outcome
from pipeline.site.site_history import Point
from pipeline.site.text_format import (
    cpu_text,
    memory_text,
    short_day_text,
    size_text,
    span_text,
)

PLOT_HEIGHT = 120
"""Pixels of the plot area."""
_MARKS = 70
"""Points up to which each has a mark."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of a value: `x` in per cent, `y` in pixels, and its text."""

    x: str
    y: float
    said: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Values for the template of one plot.

    `title`; `line`: `points` of an SVG polyline, x in per mille; `marks`; `failed`: x in per cent of runs that failed;
    `levels` of the scale (y, text); `first` and `last` day; `latest` value; `words`: a description.
    """

    name: str
    title: str
    line: str
    marks: tuple[Mark, ...]
    failed: tuple[str, ...]
    levels: tuple[tuple[float, str], ...]
    first: str
    last: str
    latest: str
    words: str


def plots(points: Sequence[Point]) -> tuple[Plot, ...]:
    """Return plots of download size, build time, peak memory and CPU time.

    Only those with two values at least.
    """
    wanted: tuple[tuple[str, str, Callable[[Point], int | None], Callable[[int | None], str], tuple[int, ...]], ...] = (
        ("size", "Size to download", lambda point: point.download, size_text, _DECIMAL),
        ("time", "Time of the build", lambda point: point.took if point.outcome is Outcome.BUILT else None, span_text,
         _SPANS),
        ("memory", "Peak memory", lambda point: point.peak_memory, memory_text, _BINARY),
        ("cpu", "Processor time", lambda point: point.cpu_time, cpu_text, tuple(1000 * step for step in _SPANS)),
    )  # fmt: skip
    made = (
        _plot(name, title, points, value=value, shown=shown, steps=steps) for name, title, value, shown, steps in wanted
    )
    return tuple(plot for plot in made if plot is not None)


_DECIMAL = tuple(10**power * step for power in range(15) for step in (1, 2, 5))
_BINARY = tuple(scale * step for scale in (1, 1 << 10, 1 << 20, 1 << 30, 1 << 40) for step in
                (1, 2, 5, 10, 20, 50, 100, 200, 500))  # fmt: skip
_SPANS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000,
          600_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 43_200_000)  # fmt: skip
"""Round steps of a scale, in milliseconds; those above are in bytes."""


def _plot(
    name: str,
    title: str,
    points: Sequence[Point],
    *,
    value: Callable[[Point], int | None],
    shown: Callable[[int | None], str],
    steps: Sequence[int],
) -> Plot | None:
    seen = [(point, number) for point in points if (number := value(point)) is not None]
    if len(seen) < 2:
        return None
    began, ended = points[0].at, points[-1].at
    across = max(1, ended - began)
    highest = max(1, *(number for _, number in seen))
    step = next((one for one in steps if highest / one <= 3), math.ceil(highest / 3))
    top = step * math.ceil(highest / step)

    def x(point: Point) -> float:
        return (point.at - began) / across

    def y(number: int) -> float:
        return round(PLOT_HEIGHT * (1 - number / top), 1)

    every = seen if len(seen) <= _MARKS else seen[-1:]
    lowest = min(number for _, number in seen)
    failed = [point for point in points if point.outcome in (Outcome.FAILED, Outcome.BLOCKED)]
    words = (
        f"{len(seen)} nights from {short_day_text(seen[0][0].at)} to {short_day_text(seen[-1][0].at)}: "
        f"first {shown(seen[0][1])}, last {shown(seen[-1][1])}, lowest {shown(lowest)}, highest {shown(highest)}."
    )
    if failed:
        words += f" Crosses mark nights without a new image: {len(failed)}."
    return Plot(
        name=name,
        title=title,
        line=" ".join(f"{x(point) * 1000:.1f},{y(number)}" for point, number in seen),
        marks=tuple(
            Mark(f"{x(point) * 100:.2f}%", y(number), f"{short_day_text(point.at)}: {shown(number)}")
            for point, number in every
        ),
        failed=tuple(f"{x(point) * 100:.2f}%" for point in failed[-_MARKS:]),
        levels=tuple((y(level), shown(level)) for level in range(0, top + 1, step)),
        first=short_day_text(began),
        last=short_day_text(ended),
        latest=shown(seen[-1][1]),
        words=words,
    )
