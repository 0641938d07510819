"""Compute the strip of the last ninety days: a bar for each, the higher the worse it went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.night_record import Outcome
from pipeline.site.site_history import NightSummary
from pipeline.site.text_format import count_text, utc_datetime

STRIP_DAYS = 90
STRIP_HEIGHT = 44
"""Pixels of the highest bar."""

_HEIGHTS = {"failed": 44, "warned": 32, "built": 18, "quiet": 8, "": 0}
"""Pixels of a bar by state, so that states differ without colours."""
_WORDS = {
    "failed": "with failures",
    "warned": "with another problem",
    "built": "with new images",
    "quiet": "without changes",
    "": "without a night",
}
_LABEL_DAYS = 30
"""Days between two labels of the axis."""


@dataclass(frozen=True, slots=True)
class StripDay:
    """A day of the strip.

    `x` and `width` are in per cent; `link` leads to its worst night, "" without one.
    """

    x: str
    width: str
    y: int
    height: int
    state: str
    said: str
    link: str


@dataclass(frozen=True, slots=True)
class DayStrip:
    """The strip, the labels of its axis as (x, anchor, text), and the strip in words."""

    days: tuple[StripDay, ...]
    labels: tuple[tuple[str, str, str], ...]
    words: str


def day_strip(nights: Sequence[NightSummary], now: int) -> DayStrip:
    """Return the strip that ends with the day of `now`. `nights`: oldest first."""
    last = utc_datetime(now).date()
    first = last - timedelta(days=STRIP_DAYS - 1)
    worst: dict[date, NightSummary] = {}
    for night in nights:
        day = utc_datetime(night.began).date()
        known = worst.get(day)
        if known is None or _HEIGHTS[night_state(night)] >= _HEIGHTS[night_state(known)]:
            worst[day] = night
    days = [first + timedelta(days=number) for number in range(STRIP_DAYS)]
    states = [night_state(worst[day]) if day in worst else "" for day in days]
    told = [f"{count_text(states.count(state), 'day')} {said}" for state, said in _WORDS.items() if states.count(state)]
    return DayStrip(
        tuple(_bar(number, day, worst.get(day)) for number, day in enumerate(days)),
        tuple(_labels(days)),
        f"{STRIP_DAYS} days to {_short(last)}: {', '.join(told)}",
    )


def night_state(night: NightSummary) -> str:
    """Return how a night went: `failed`, `warned` (exit code not 0), `built` or `quiet`."""
    if night.count(Outcome.FAILED) or night.count(Outcome.BLOCKED):
        return "failed"
    if night.exit_code:
        return "warned"
    return "built" if night.count(Outcome.BUILT) else "quiet"


def _bar(number: int, day: date, night: NightSummary | None) -> StripDay:
    state = night_state(night) if night else ""
    height = _HEIGHTS[state]
    return StripDay(
        x=f"{number / STRIP_DAYS * 100:.3f}%",
        width=f"{0.8 / STRIP_DAYS * 100:.3f}%",
        y=STRIP_HEIGHT - height,
        height=height,
        state=state,
        said=f"{_short(day)}: {night.headline if night else 'no night'}",
        link=f"nights/{night.stamp}.html" if night else "",
    )


def _labels(days: Sequence[date]) -> list[tuple[str, str, str]]:
    middle = [
        (f"{number / STRIP_DAYS * 100:.3f}%", "middle", _short(days[number]))
        for number in range(_LABEL_DAYS, STRIP_DAYS, _LABEL_DAYS)
    ]
    return [("0", "start", _short(days[0])), *middle, ("100%", "end", _short(days[-1]))]


def _short(day: date) -> str:
    return f"{day.day} {day:%b}"
