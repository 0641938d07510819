"""Data classes for security advisories, and the threshold for missing fixes.

Values without I/O; times are milliseconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Nevra
from pipeline.model.published_image import MissingFix

SECURITY = "security"
"""The kind of advisory that fixes vulnerabilities."""

SEVERITIES = ("critical", "important", "moderate", "low", "")
"""The words of updateinfo, the worst first; "" where an advisory gives none."""

DAY = 86_400_000
"""Milliseconds."""

_DAYS_MOST = 36_500
"""Days to which a threshold is cut."""

_EVR = re.compile(r"(?:(\d{1,9}):)?([^-:\s]+)-([^-\s]+)")


@dataclass(frozen=True, slots=True)
class FixedPackage:
    """A package in an advisory, fixed in `evr` (`[epoch:]version-release`).

    `module` is the stream that it belongs to (`nodejs:20`), "" if none; where that stream is not enabled, the advisory
    does not apply.
    """

    name: str
    arch: str
    evr: str
    module: str = ""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One `update` of a repository's updateinfo.

    `kind` is its type in lower case (`security`, `bugfix`, …), `severity` one of SEVERITIES, `issued` 0 where that
    cannot be read, `repository` the id of the repository that offers it.
    """

    id: str
    kind: str
    severity: str
    title: str
    issued: int
    cves: tuple[str, ...]
    packages: tuple[FixedPackage, ...]
    repository: str


@dataclass(frozen=True, slots=True)
class Advisories:
    """All advisories of a platform's repositories.

    `heard` are the ids of the repositories that have an updateinfo, `silent` of those that have none, so that fixes of
    their packages are unknown. `notes` are sentences about entries that could not be parsed.
    """

    given: tuple[Advisory, ...]
    heard: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePackage:
    """A package in an image.

    `source` is the file name of its source package, `repository` the id of where it came from ("": not told).
    """

    nevra: Nevra
    source: str = ""
    repository: str = ""

    @classmethod
    def of(cls, name: str, evr: str, arch: str, source: str = "", repository: str = "") -> ImagePackage:
        """Make one from the `[epoch:]version-release` that bills and reports have.

        Raises ValueError for another form.
        """
        found = _EVR.fullmatch(evr)
        if found is None:
            raise ValueError(f"'{evr[:80]}' is not [epoch:]version-release")
        epoch, version, release = found.groups()
        return cls(Nevra(name, int(epoch or 0), version, release, arch), source, repository)


@dataclass(frozen=True, slots=True)
class Threshold:
    """The severity, and the age in days, from which a missing fix exceeds the threshold."""

    severity: str
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Parse `important`, `important:7`; `none` for any severity.

        Raises UsageError `threshold-malformed`.
        """
        word, colon, number = text.strip().lower().partition(":")
        severity = "" if word == "none" else word
        if not word or severity not in SEVERITIES or (colon and not re.fullmatch(r"[0-9]{1,6}", number)):
            raise UsageError(
                "threshold-malformed",
                f"'{text[:60]}' is not SEVERITY[:DAYS]",
                hint="write critical, important, moderate, low or none, and optionally days: important:7",
            )
        return cls(severity, min(int(number or 0), _DAYS_MOST))

    def __str__(self) -> str:
        return f"{self.severity or 'none'}:{self.days}"


def age_in_days(issued: int, now: int) -> int | None:
    """Return whole days from `issued` to `now`; None if the date is unknown (0)."""
    return max(0, now - issued) // DAY if issued else None


def rank(severity: str) -> int:
    """Return the index of a severity in SEVERITIES: the worst is 0."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def exceeding(threshold: Threshold, missing: Iterable[MissingFix], now: int) -> tuple[MissingFix, ...]:
    """Return those of `missing` that reach both severity and age of `threshold`.

    `now` is in milliseconds since the epoch. A fix without a date counts as old; only security fixes count.
    """
    found = []
    for fix in missing:
        age = age_in_days(fix.issued, now)
        bad = fix.kind == SECURITY and rank(fix.severity) <= rank(threshold.severity)
        if bad and (age is None or age >= threshold.days):
            found.append(fix)
    return tuple(found)
