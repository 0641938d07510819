"""Data class for package content that was changed after installation, and the cause."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A path whose content is no longer the package's, and the cause of the change.

    `path` is canonical.
    """

    path: str
    package: str
    cause: str
