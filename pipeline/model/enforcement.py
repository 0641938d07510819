"""Computation of which requested limits the kernel enforced in a smoke test.

They are found from what was read back, whatever the report says.

A limit that a recipe asks for is not enforced everywhere: without delegated control groups an ordinary user's
instances have neither memory nor processors limited. Such a test counts all the same, unless a mirror's operator
demands enforced limits by a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.limit import AsFileSystem, LimitReading
from pipeline.model.limits import IN_STAGES, LIMITS, Limits
from pipeline.model.report import SmokeReport

_BY_NAME = {limit.name: limit for limit in LIMITS}


@dataclass(frozen=True, slots=True)
class LimitEnforcement:
    """One limit that was asked for, and the kernel's enforcement of it.

    `enforced`: the kernel held every instance to it; if not, `reason` says why.
    """

    name: str
    asked: int
    enforced: bool
    reason: str = ""


def enforcement(*reports: SmokeReport) -> tuple[LimitEnforcement, ...]:
    """Return the enforcement of each limit that was asked for, or read back.

    A limit is enforced if all instances of all reports were held to it.
    """
    found: dict[str, LimitEnforcement] = {}
    for report in reports:
        asked = asked_limits(report.asked.limits)
        for instance in report.instances:
            read = {reading.name for reading in instance.limits}
            for reading in (*instance.limits, *(_unread(name, value) for name, value in asked if name not in read)):
                known = found.get(reading.name)
                if known is None or known.enforced:
                    found[reading.name] = _of(reading)
    return tuple(found.values())


def enforcement_lines(limits: Sequence[LimitEnforcement]) -> tuple[str, ...]:
    """Say for people which limits were enforced in the test, and which not, by reason."""
    if not limits:
        return ()
    enforced = [limit.name for limit in limits if limit.enforced]
    return (f"limits enforced in the test: {', '.join(enforced) or 'none'}", *unenforced_lines(limits))


def unenforced_lines(limits: Sequence[LimitEnforcement]) -> tuple[str, ...]:
    """Say for people which limits were not enforced in the test, by reason."""
    names: dict[str, list[str]] = {}
    for limit in limits:
        if not limit.enforced:
            names.setdefault(limit.reason, []).append(limit.name)
    return tuple(f"! limits not enforced in the test: {', '.join(some)}: {reason}" for reason, some in names.items())


def unenforced(patterns: Sequence[str], limits: Sequence[LimitEnforcement]) -> tuple[str, ...]:
    """Return the limits that break a rule's demands `patterns`, for people.

    Patterns are globs of limits that must be enforced if they were asked for; a plain name must have been asked for
    as well.
    """
    wrong = [f"{one.name} ({one.reason})" for one in limits if not one.enforced and _matches(one.name, patterns)]
    names = {one.name for one in limits}
    wrong += [f"{name} (no such limit was asked for)" for name in patterns if not _is_glob(name) and name not in names]
    return tuple(wrong)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_glob(pattern: str) -> bool:
    return any(character in pattern for character in "*?[")


def asked_limits(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Return the limits that were asked for, by the names that readings have.

    Scratch space and volumes are not among them: the sandbox knows which there are.
    """
    found = ((limit.name, limits[limit]) for limit in IN_STAGES if not isinstance(limit.set_by, AsFileSystem))
    return tuple((name, value) for name, value in found if value is not None)


def is_enforced(reading: LimitReading) -> bool:
    """Return whether the value that was read back enforces the limit that was asked for."""
    if not reading.enforced or reading.read is None:
        return False
    limit = _BY_NAME.get(reading.name)
    slack, share = (limit.slack, limit.share) if limit is not None else (0, False)
    return share or reading.read <= reading.asked + slack


def _of(reading: LimitReading) -> LimitEnforcement:
    if is_enforced(reading):
        return LimitEnforcement(reading.name, reading.asked, enforced=True)
    reason = reading.reason or f"asked {reading.asked}, read {reading.read}"
    return LimitEnforcement(reading.name, reading.asked, enforced=False, reason=reason)


def _unread(name: str, asked: int) -> LimitReading:
    return LimitReading(name, asked, None, False, "it was not read back")
