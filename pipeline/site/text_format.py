"""Format sizes, durations, times, counts and logs as texts for the site's pages.

Times are UTC, in milliseconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

MILLISECONDS_PER_DAY = 86_400_000
NUMBER = re.compile(r"\d+")
"""Numbers, in which failures may differ that are the same otherwise."""
LOG_LINES_LIMIT = 400
LOG_LINE_LIMIT = 2000
"""Lines of a log that a page shows, and characters of a line."""
_LOG_SHOWN = 15
"""Lines of a failure's log that a product's page shows at once; the others are folded."""


def size_text(size: int | None) -> str:
    """Format bytes in decimal units, as registries do: `482 B`, `12.4 MB`."""
    return _scaled(size, 1000, ("kB", "MB", "GB", "TB"))


def memory_text(size: int | None) -> str:
    """Format bytes in binary units, as memory limits are: `12.4 MiB`."""
    return _scaled(size, 1024, ("KiB", "MiB", "GiB", "TiB"))


def _scaled(size: int | None, base: int, units: tuple[str, ...]) -> str:
    if size is None:
        return "–"
    if size < base:
        return f"{size} B"
    value = float(size)
    for unit in units:
        value /= base
        if value < base - 0.05 or unit == units[-1]:
            break
    return f"{value:.1f} {unit}"


def span_text(milliseconds: int | None) -> str:
    """Format a duration in its two largest units: `340 ms`, `4.2 s`, `3 min 7 s`, `2 h 5 min`."""
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1000:.1f} s"
    seconds = round(milliseconds / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def cpu_text(microseconds: int | None) -> str:
    """Format CPU time as a duration."""
    return span_text(None if microseconds is None else round(microseconds / 1000))


def utc_datetime(at: int) -> datetime:
    """Convert a time to a datetime in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC)


def iso_text(at: int) -> str:
    """Format a time by RFC 3339: `2026-11-25T03:30:12Z`."""
    return utc_datetime(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_text(at: int) -> str:
    """Format a time for file names, sortable: `2026-11-25T033012Z`."""
    return utc_datetime(at).strftime("%Y-%m-%dT%H%M%SZ")


def day_text(at: int) -> str:
    """Format a day: `25 November 2026`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%B %Y}"


def weekday_text(at: int) -> str:
    """Format a day with its weekday: `Wednesday, 25 November 2026`."""
    return f"{utc_datetime(at):%A}, {day_text(at)}"


def minute_text(at: int) -> str:
    """Format a time to the minute: `25 Nov 2026, 03:30`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%b %Y, %H:%M}"


def clock_text(at: int) -> str:
    """Format a time of day: `03:30`."""
    return f"{utc_datetime(at):%H:%M}"


def short_day_text(at: int) -> str:
    """Format a day without the year: `25 Nov`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%b}"


def count_text(number: int, noun: str) -> str:
    """Format a count with its noun: `1 product`, `2 products`, `2 fixes`, `2 repositories`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('x') else 's'}"


def log_lines(log: Sequence[str]) -> list[str]:
    """Return the last lines of a log, at most LOG_LINES_LIMIT, cut at LOG_LINE_LIMIT characters."""
    return [f"{line[:LOG_LINE_LIMIT]}…" if len(line) > LOG_LINE_LIMIT else line for line in log[-LOG_LINES_LIMIT:]]


def shown_part(lines: Sequence[str], cause: str) -> tuple[int, int]:
    """Return the lines of a log to show at once, as (first, end).

    They are around `cause`, else the last ones.
    """
    found = next((number for number, line in enumerate(lines) if cause and cause in line), None)
    first = max(0, len(lines) - _LOG_SHOWN if found is None else found - 2)
    return first, min(len(lines), first + _LOG_SHOWN)


def pixel_text(pixels: float) -> str:
    """Format a length in an SVG drawing."""
    return f"{pixels:.2f}"


def days_since(issued: int, now: int) -> int:
    """Return whole days from one time to another, at least 0."""
    return max(0, (now - issued) // MILLISECONDS_PER_DAY)


def days_until(day: str, now: int) -> int | None:
    """Return the days from `now` to a date such as `2027-04-30`; None if malformed.

    Negative for a date in the past.
    """
    try:
        return (date.fromisoformat(day) - utc_datetime(now).date()).days
    except ValueError:
        return None


def join_names(names: list[str]) -> str:
    """Join names: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
