"""Days until a product's end of life, and a warning when it is near or past."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

WARNED_BEFORE = 90
"""Days before the end from which on there is a warning."""


def days_left(end_of_life: str, now: int) -> int:
    """Return the days that are left to the end of the day `end_of_life` (`2027-04-30`, UTC).

    They are counted from `now` (milliseconds since the epoch); the day itself counts as 0; negative when it has passed.
    Raises ValueError for what is no date.
    """
    today = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=now)).date()
    return (date.fromisoformat(end_of_life) - today).days


def lifetime_warning(end_of_life: str, now: int) -> str:
    """Return a sentence when the end has passed or is near, else ""; "" where there is no end."""
    if not end_of_life:
        return ""
    left = days_left(end_of_life, now)
    if left < 0:
        return f"the image is past its end of life: {end_of_life}, {days_text(-left)} ago"
    if left <= WARNED_BEFORE:
        return f"the image is close to its end of life: {end_of_life}, in {days_text(left)}"
    return ""


def days_text(days: int) -> str:
    """`1 day`, `3 days`."""
    return f"{days} day{'' if days == 1 else 's'}"
