"""Figures, times and texts, formatted for people.

Times are UTC, in milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

MILLISECONDS_PER_DAY = 86_400_000
"""Milliseconds."""
LOG_LINES_LIMIT = 400
LOG_LINE_LIMIT = 2000
"""Lines of a log that a page shows, and characters of one."""


def size_text(size: int | None) -> str:
    """Bytes in decimal units, as registries show them: `482 B`, `12.4 MB`."""
    return _scaled(size, 1000, ("kB", "MB", "GB", "TB"))


def memory_text(size: int | None) -> str:
    """Bytes in binary units, as limits of memory are given: `12.4 MiB`."""
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
    """A duration in its two largest units: `340 ms`, `4.2 s`, `3 min 7 s`, `2 h 5 min`."""
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
    """Time of a processor."""
    return span_text(None if microseconds is None else round(microseconds / 1000))


def utc_datetime(at: int) -> datetime:
    """A time as a datetime in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC)


def iso_text(at: int) -> str:
    """`2026-11-25T03:30:12Z`: RFC 3339."""
    return utc_datetime(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_text(at: int) -> str:
    """`2026-11-25T033012Z`: a night's name, which sorts and is a file's name everywhere."""
    return utc_datetime(at).strftime("%Y-%m-%dT%H%M%SZ")


def day_text(at: int) -> str:
    """`25 November 2026`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%B %Y}"


def weekday_text(at: int) -> str:
    """`Wednesday, 25 November 2026`."""
    return f"{utc_datetime(at):%A}, {day_text(at)}"


def minute_text(at: int) -> str:
    """`25 Nov 2026, 03:30`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%b %Y, %H:%M}"


def clock_text(at: int) -> str:
    """`03:30`."""
    return f"{utc_datetime(at):%H:%M}"


def short_day_text(at: int) -> str:
    """`25 Nov`."""
    when = utc_datetime(at)
    return f"{when.day} {when:%b}"


def count_text(number: int, noun: str) -> str:
    """`1 product`, `2 products`, `2 fixes`, `2 repositories`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('x') else 's'}"


def log_lines(log: Sequence[str]) -> list[str]:
    """The last lines of a log, as many and as long as a page should have."""
    return [f"{line[:LOG_LINE_LIMIT]}…" if len(line) > LOG_LINE_LIMIT else line for line in log[-LOG_LINES_LIMIT:]]


def pixel_text(pixels: float) -> str:
    """A length in a drawing."""
    return f"{pixels:.2f}"


def days_since(issued: int, now: int) -> int:
    """Whole days from one time to another, never below 0."""
    return max(0, (now - issued) // MILLISECONDS_PER_DAY)


def days_until(day: str, now: int) -> int | None:
    """Return the days from `now` to a date such as `2027-04-30`; None if that is no date.

    Negative when it has passed.
    """
    try:
        return (date.fromisoformat(day) - utc_datetime(now).date()).days
    except ValueError:
        return None


def join_names(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
