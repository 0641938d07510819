"""The gate: what may be published. To be filled."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.artifact import Manifest


@dataclass(frozen=True, slots=True)
class Cleared:
    """An image or index that may be published under a name."""

    manifest: Manifest
