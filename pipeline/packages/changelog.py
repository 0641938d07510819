"""Read a package's changelog, and find the vulnerabilities that it names.

It is read separately from the header: a build does not need it, and a distribution's largest changelogs have more bytes
than the rest of the header.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.model.header import ChangelogEntry
from pipeline.packages.rpm_header import open_header
from pipeline.packages.rpm_library import rpm

CHANGELOG_ENTRIES_MOST = 200
"""The newest entries that are read: ten years of most packages."""

CHANGELOG_TEXT_MOST = 64 << 10
"""Characters of text that are read, over all entries."""

_SECONDS_OF_DAY = 86_400

_IDENTIFIER = re.compile(
    r"\b(?:CVE-\d{4}-\d{4,9}|GHSA(?:-[23456789cfghjmpqrvwx]{4}){3})\b",
    re.IGNORECASE,
)
"""CVE IDs (cve.org, syntax since 2014) and GitHub's advisory IDs. Numbers of bugs are ambiguous without their
tracker."""


def read_changelog(path: Path) -> tuple[ChangelogEntry, ...]:
    """Read the newest changelog entries of the RPM at `path`.

    As its header orders them (newest first), up to CHANGELOG_ENTRIES_MOST and CHANGELOG_TEXT_MOST; the last
    one may be cut. Raises VerificationError `package-damaged`.
    """
    header = open_header(path)
    times, names, texts = (
        header[tag] or [] for tag in (rpm.RPMTAG_CHANGELOGTIME, rpm.RPMTAG_CHANGELOGNAME, rpm.RPMTAG_CHANGELOGTEXT)
    )
    return newest_entries(times, names, texts)


def newest_entries(times: Sequence[int], names: Sequence[str], texts: Sequence[str]) -> tuple[ChangelogEntry, ...]:
    """Return the first entries of a changelog as a header holds it.

    Up to CHANGELOG_ENTRIES_MOST and CHANGELOG_TEXT_MOST; the last one may be cut.
    """
    found = []
    left = CHANGELOG_TEXT_MOST
    for time, name, text in list(zip(times, names, texts, strict=False))[:CHANGELOG_ENTRIES_MOST]:
        found.append(ChangelogEntry(time, name, text[:left]))
        left -= len(text)
        if left <= 0:
            break
    return tuple(found)


def read_change_days(path: Path) -> tuple[int, ...]:
    """Read the days, since the epoch, of the newest changelog entries of the RPM at `path`.

    Those of the newest CHANGELOG_ENTRIES_MOST entries, each day once, sorted; that of its build where it has none.
    Raises VerificationError `package-damaged`.
    """
    header = open_header(path)
    times = (header[rpm.RPMTAG_CHANGELOGTIME] or [])[:CHANGELOG_ENTRIES_MOST] or [header[rpm.RPMTAG_BUILDTIME] or 0]
    return tuple(sorted({time // _SECONDS_OF_DAY for time in times}))


def named_fixes(entries: Sequence[ChangelogEntry]) -> tuple[str, ...]:
    """Return the identifiers of the vulnerabilities that entries name, each once, sorted.

    `CVE-2024-0001`, `GHSA-xxxx-xxxx-xxxx`.
    """
    return tuple(sorted({_spelled(found) for entry in entries for found in _IDENTIFIER.findall(entry.text)}))


def _spelled(identifier: str) -> str:
    kind, _, number = identifier.partition("-")
    return f"{kind.upper()}-{number.lower()}"
