"""Detect that repositories changed while they were read, and make the error for it.

Then files that a repomd.xml names are missing or have other content.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import EnvironmentLacking, RelbuildError
from pipeline.repos.repository import OpenRepository

CHANGED_CODES = frozenset({"download-missing", "download-mismatch", "metadata-mismatch"})
"""Codes of errors for files that a server no longer has, or that differ from its repomd.xml."""


def indexes_changed(before: Sequence[OpenRepository], now: Sequence[OpenRepository]) -> bool:
    """Return whether the repomd.xml of any repository differs."""
    return {one.repository.id: one.repomd for one in before} != {one.repository.id: one.repomd for one in now}


def still_changing_error(error: RelbuildError) -> EnvironmentLacking:
    """Return the error for repositories that changed again while they were read again."""
    return EnvironmentLacking(
        "repository-changing",
        f"the repositories changed twice while they were read: {error.problems[0].message}",
        place=error.problems[0].place,
        hint="run the command again when the update has finished, or use a mirror that is updated atomically",
    )
