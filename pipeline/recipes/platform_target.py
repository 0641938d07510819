"""The platform that recipes are loaded for.

It loads no library by itself, so that whoever names one starts quickly.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import recipes
from pipeline.beneath import is_there
from pipeline.lazy_dataclasses import dataclass

if TYPE_CHECKING:
    from pipeline.recipes import Platforms


PLATFORMS_FILE = "repositories.yaml"
"""The file beside recipes that defines platforms."""


@dataclass(frozen=True, slots=True)
class PlatformTarget:
    """The platform that recipes are loaded for.

    `definitions` is the file that defines platforms, read when a recipe with `platforms` is loaded; without it a
    platform belongs to no family. `name` overrides the recipe's platform, and may have add-ons (`rocky-9+epel`).
    """

    definitions: Path
    name: str | None = None

    def platforms(self) -> Platforms | None:
        """Return the defined platforms, None if there is no such file. Raises RecipeError."""
        return recipes.load_platforms(self.definitions) if is_there(self.definitions) else None
