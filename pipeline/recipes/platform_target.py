"""The platform that recipes are loaded for.

It loads no library by itself, so that whoever names one starts quickly.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import recipes
from pipeline.lazy_dataclasses import dataclass

if TYPE_CHECKING:
    from pipeline.recipes import Platforms


@dataclass(slots=True)
class PlatformTarget:
    """The platform that recipes are loaded for.

    `definitions` is the file that defines platforms, read when the first recipe with `platforms` is loaded; without it
    a platform belongs to no family. `name` overrides the recipe's platform, and may have add-ons (`rocky-9+epel`).
    """

    definitions: Path
    name: str | None = None
    _platforms: Platforms | None = field(default=None, init=False)

    def platforms(self) -> Platforms | None:
        """Return the defined platforms, None if there is no such file. Raises RecipeError."""
        if self._platforms is None and self.definitions.exists():
            self._platforms = recipes.load_platforms(self.definitions)
        return self._platforms
