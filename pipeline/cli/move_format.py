"""Formatting of tag moves and enforced limits as lines for people and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.model.enforcement import LimitEnforcement
from pipeline.model.publication import Move

if TYPE_CHECKING:
    from pipeline.release import MoveResult  # `publish` moves tags without all that promotes and rolls back


def limits_as_json(limits: tuple[LimitEnforcement, ...]) -> list[dict[str, object]]:
    """Format the limits of the tested instances, requested and enforced, as JSON values."""
    return [
        {"name": limit.name, "asked": limit.asked, "enforced": limit.enforced, "reason": limit.reason or None}
        for limit in limits
    ]


def move_text(move: Move) -> str:
    """Format a move of a tag for people."""
    return f"{move.tag}: {move.before.short if move.before else 'new'} → {move.after.short}"


def move_as_json(move: Move) -> dict[str, object]:
    """Format a move of a tag as JSON values; `at` in milliseconds since the epoch."""
    return {
        "tag": move.tag,
        "from": str(move.before) if move.before else None,
        "to": str(move.after),
        "at": move.at,
        "why": str(move.why),
        "version": move.version,
    }


def moved_as_lines(moved: MoveResult) -> tuple[str, ...]:
    """Format the result of promoting or rolling back as lines for people."""
    what = f"{moved.repository}:{moved.tag}"
    if moved.moved is None:
        return (f"{what} already points to {moved.digest}",)
    before = moved.moved.before
    return (f"{what}: {before or 'new'} → {moved.digest}" + (f" ({moved.version})" if moved.version else ""),)


def moved_as_json(moved: MoveResult) -> dict[str, object]:
    """Format the result of promoting or rolling back as JSON values."""
    return {
        "repository": moved.repository,
        "tag": moved.tag,
        "digest": str(moved.digest),
        "version": moved.version,
        "moved": move_as_json(moved.moved) if moved.moved else None,
    }
