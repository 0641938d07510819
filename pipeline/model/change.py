"""Package content of an image that was changed after its installation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """Package content that is not as the package brought it, and the cause of the change.

    `path` is canonical.
    """

    path: str
    package: str
    cause: str
