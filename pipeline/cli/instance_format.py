"""Formatting of instances as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from pipeline.escaping import escape_invisible
from pipeline.instances import (
    InstanceFolder,
    InstancePhase,
    InstanceRecord,
    InstanceState,
    instance_state,
    supervisor_pid,
)
from pipeline.model.json_form import to_json
from pipeline.model.limit import LimitReading
from pipeline.model.limits import LIMITS
from pipeline.model.quantities import BANDWIDTH, CPUS, Quantity

_FORMS = {limit.name: limit.form for limit in LIMITS}
_SHOWN = frozenset(limit.name for limit in LIMITS if limit.option)
"""Limits that `ps` shows: those that `run` has options for. Others only if they are not enforced."""
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
"""Seconds of a unit, and its name: the largest that fits is shown."""


def duration_text(seconds: float) -> str:
    """Return a duration in whole units for people: `42 s`, `3 min`, `5 h`, `12 d`."""
    whole = max(0, int(seconds))
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= size), _UNITS[-1])
    return f"{whole // size} {unit}"


def limit_text(reading: LimitReading) -> str:
    """Return a limit as it is written in a recipe, marked if it is not enforced."""
    form = _FORMS.get(reading.name.partition(" ")[0])  # `volume /path`: each volume has its own reading.
    asked = str(reading.asked)
    if form is CPUS:
        asked = f"{reading.asked / 1000:g}"
    elif form is BANDWIDTH:
        asked = f"{reading.asked / 1_000_000:g}mbit"
    elif isinstance(form, Quantity):
        asked = form.write(reading.asked)
    return f"{reading.name} {asked}" + ("" if reading.enforced else " (not enforced)")


def state_text(record: InstanceRecord, state: InstanceState, now: float) -> str:
    """Return the state of an instance with its time: `running for 3 min`, `exited (0) 5 s ago`."""
    match state:
        case InstanceState.STARTING:
            return "starting"
        case InstanceState.RUNNING:
            return f"running for {duration_text(now - record.started / 1000)}"
        case InstanceState.EXITED:
            return f"exited ({record.exit_code}) {duration_text(now - (record.ended or 0) / 1000)} ago"
        case InstanceState.DEAD:
            started = record.phase is not InstancePhase.STARTING
            return "dead: its supervisor was killed" if started else "dead: it was not started"
        case other:
            assert_never(other)


def instance_lines(found: Sequence[tuple[InstanceFolder, InstanceRecord | None]], now: float) -> tuple[str, ...]:
    """Return a table of instances, and below each one what its columns do not hold."""
    rows: list[tuple[str, ...]] = [("NAME", "PRODUCT", "STATE", "PORTS")]
    below: list[tuple[str, ...]] = [()]
    for folder, record in found:
        if record is None:
            rows.append((folder.name, "?", "unknown: its record cannot be read", ""))
            below.append(())
            continue
        state = instance_state(record, supervised=folder.supervised())
        ports = ", ".join(f"{port.host} → {port.container}" for port in record.ports)
        rows.append((record.name, f"{record.product} {record.version}".rstrip(), state_text(record, state, now), ports))
        below.append(tuple(_details(record, state)))
    # A name, a label or a file's path of a foreign image may be any text.
    rows = [tuple(escape_invisible(cell, lines=False) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, more in zip(rows, below, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
        lines += [f"  {escape_invisible(line, lines=False)}" for line in more]
    return tuple(lines)


def _details(record: InstanceRecord, state: InstanceState) -> list[str]:
    lines = [f"{record.digest.short}  {record.subject}"]
    limits = [limit_text(one) for one in record.limits if one.name in _SHOWN or not one.enforced]
    if limits and state in (InstanceState.RUNNING, InstanceState.STARTING):
        lines.append(f"limits: {', '.join(limits)}")
    if record.changes:
        lines.append(f"with changes: {', '.join(record.changes)}")
    return lines


def instance_as_json(folder: InstanceFolder, record: InstanceRecord | None) -> dict[str, object]:
    """Return an instance with its state, the PID of its supervisor, and all of its record."""
    if record is None:
        return {"name": folder.name, "state": None}
    written = to_json(record)
    assert isinstance(written, dict)
    return {
        **written,
        "state": str(instance_state(record, supervised=folder.supervised())),
        "supervisor": supervisor_pid(folder),
        "log": str(folder.path / "log"),
        "files": str(folder.files) if folder.files.exists() else None,
    }
