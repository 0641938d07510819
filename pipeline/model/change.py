"""What in an image is not as a package brought it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """Package content that is not as the package brought it, and what did it. `path` is canonical."""

    path: str
    package: str
    cause: str
