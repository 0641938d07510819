"""The `history` command: list the moves of a tag, and the package changes of each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_optional_keys
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import move_as_json
from pipeline.cli.progress_display import ProgressStyle, bytes_text
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.image_difference import ImageDifference
from pipeline.release import HistoryStep, history

_SHOWN = 12
"""Packages of a change that a terminal shows."""


@command(rank=190, progress=ProgressStyle.NONE)
def history_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", help="Show only moves signed by this public key, and what led to them (default: all, unverified)."
        ),
    ] = None,
    former: options.FormerKeyOption = None,
    known_as: options.SignedAsOption,
) -> int:
    """List what a tag pointed to, when, and what changed."""
    build_env = context.build_env()
    verifying = open_optional_keys(key, former, context)
    steps = history(parse_address(reference), build_env, verifying, identity=identity_for(known_as))
    lines = [line for step in steps for line in _lines(step)] or ["this tag has no recorded moves"]
    context.show(lines, {"history": [_json(step) for step in steps]})
    return 0


def _lines(step: HistoryStep) -> Iterator[str]:
    move = step.past.move
    when = datetime.fromtimestamp(move.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    yield (
        f"{when}  {move.why:<8}  {move.version or '':<12}  {move.after}"
        + ("" if step.past.happened else "  (recorded, but not made)")
        + ("" if step.past.signed else "  (not signed)")
        + (f"  (names another key, {step.past.other_key.short}: not verified)" if step.past.other_key else "")
    )
    if step.changes is not None:
        yield from (f"    {line}" for line in _changes(step.changes))


def _changes(changes: ImageDifference) -> Iterator[str]:
    lines = [
        *(f"~ {name} {before} → {after}" for name, before, after in changes.changed),
        *(f"+ {package}" for package in changes.added),
        *(f"- {package}" for package in changes.removed),
    ]
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"… and {len(lines) - _SHOWN} more packages (--json has all)"
    if changes.fixed:
        yield f"fixes: {', '.join(changes.fixed[:_SHOWN])}" + (" …" if len(changes.fixed) > _SHOWN else "")
    if changes.grew:
        yield f"{'+' if changes.grew > 0 else '-'}{bytes_text(abs(changes.grew))} compressed"


def _json(step: HistoryStep) -> dict[str, object]:
    changes = step.changes
    return {
        **move_as_json(step.past.move),
        "happened": step.past.happened,
        "record": step.past.record,
        "number": step.past.number or None,
        "signed": step.past.signed,
        "other_key": str(step.past.other_key) if step.past.other_key else None,
        "changes": None
        if changes is None
        else {
            "added": list(changes.added),
            "removed": list(changes.removed),
            "changed": [list(one) for one in changes.changed],
            "fixed": list(changes.fixed),
            "grew": changes.grew,
        },
    }
