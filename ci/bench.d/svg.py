"""Plots as SVG text: bars with their spread, goals, and points with the straight line through them.

The same figures give the same bytes. Colours have enough contrast on white and on dark pages alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from results import number
from turns import straight

LETTER = 6.6
"""Width of a letter of a label of size 12, on average."""
WIDTH, LEFT, RIGHT, TOP, ROW = 760, 330, 90, 40, 24
PLOT = WIDTH - LEFT - RIGHT
INK, FAINT, OURS, THEIRS, BAD = "#57606a", "#8c959f", "#2f6fce", "#8c959f", "#cf5b2e"


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: what it is called, its value and spread, what is written after it, and whether it is relbuild's."""

    label: str
    value: float
    least: float
    greatest: float
    text: str
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Reached:
    """How a row stands to its goal: 1 is the goal, more is better. `limit` is how far the machine would let it come."""

    label: str
    value: float
    least: float
    greatest: float
    text: str
    limit: float | None = None


def _page(title: str, height: float, body: Sequence[str], width: float = WIDTH) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" font-family="system-ui, sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            _text(12, 22, title, size=15, weight="600"),
            *body,
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{INK}">{escape(text)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = FAINT, width: float = 1, dashes: str = ""
) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _ring(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="none" stroke="{INK}" stroke-width="1.5"/>'


def bars(title: str, shown: Sequence[Bar]) -> str:
    """Draw bars below each other, each with a thin line from the least to the greatest of its turns."""
    scale = PLOT / max(1e-9, *(one.greatest for one in shown))
    body = []
    for index, one in enumerate(shown):
        y = TOP + index * ROW
        body += [
            _text(LEFT - 8, y + 15, one.label, anchor="end"),
            f'<rect x="{LEFT}" y="{y + 4}" width="{max(1.0, one.value * scale):.1f}" height="{ROW - 8}" rx="2" '
            f'fill="{OURS if one.ours else THEIRS}"/>',
            _line(LEFT + one.least * scale, y + ROW / 2, LEFT + one.greatest * scale, y + ROW / 2, colour=INK, width=2),
            _text(LEFT + one.greatest * scale + 8, y + 16, one.text),
        ]
    return _page(title, TOP + len(shown) * ROW + 12, body)


def goals(title: str, shown: Sequence[Reached]) -> str:
    """Draw on a logarithmic scale how far each row is from its goal; right of the line it is met.

    A ring shows where the row would be at the machine's limit.
    """
    left = 16 + LETTER * max(len(one.label) for one in shown)
    end = left + PLOT + 16
    width = end + LETTER * max(len(one.text) for one in shown)
    least = min(0.5, *(max(1e-3, one.least) for one in shown))
    most = max(2.0, *(max(one.greatest, one.limit or 0.0) for one in shown))
    low, high = math.log(least), math.log(most)

    def place(value: float) -> float:
        return left + (math.log(max(least, value)) - low) / (high - low) * PLOT

    bottom = TOP + len(shown) * ROW
    body = [
        _line(place(1), TOP - 4, place(1), bottom, colour=INK, dashes="4 3"),
        _text(place(1), bottom + 16, "goal", anchor="middle"),
    ]
    for index, one in enumerate(shown):
        y = TOP + index * ROW + ROW / 2
        colour = OURS if one.value >= 1 else BAD
        body += [
            _text(left - 8, y + 4, one.label, anchor="end", size=12),
            _line(place(one.least), y, place(one.greatest), y, colour=colour, width=2),
            f'<circle cx="{place(one.value):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>',
            _text(end, y + 4, one.text, size=12),
        ]
        if one.limit is not None:
            body.append(_ring(place(one.limit), y))
    if any(one.limit is not None for one in shown):
        body += [_ring(16, bottom + 12), _text(26, bottom + 16, "at the machine's limit")]
    return _page(title, bottom + 28, body, width)


def growth(title: str, along: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    """Draw points and the straight line that fits them best."""
    width, height, left, top, right, bottom = 460, 300, 64, 44, 20, 46
    most_x, most_y = max(x for x, _ in points), max(1e-9, *(y for _, y in points))
    fit = straight(points)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / most_x * (width - left - right), height - bottom - y / (most_y * 1.1) * (
            height - top - bottom
        )

    first, last = place(0, max(0.0, fit.start)), place(most_x, fit.start + fit.slope * most_x)
    origin, corner, upper = place(0, 0), place(most_x, 0), place(0, most_y * 1.1)
    body = [
        _line(*origin, *corner, colour=INK),
        _line(*origin, *upper, colour=INK),
        _line(*first, *last, colour=THEIRS, width=1.5, dashes="5 4"),
        _text((left + width - right) / 2, height - 10, along, anchor="middle"),
        _text(left - 8, upper[1] + 8, f"{number(most_y * 1.1, unit)} {unit}", anchor="end", size=11),
        _text(left - 8, origin[1], "0", anchor="end", size=11),
        _text(corner[0], corner[1] + 16, f"{most_x:,.0f}", anchor="end", size=11),
    ]
    for x, y in points:
        cx, cy = place(x, y)
        body.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="{OURS}"/>')
    return _page(title, height, body, width)
