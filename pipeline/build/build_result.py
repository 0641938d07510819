"""The results of a build.

They are an image in the store, and one that was tested and stands in the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.launch import SmokeResult
from pipeline.model.bill import Bill, BuildRecord
from pipeline.model.change import Change
from pipeline.model.evidence import Evidence
from pipeline.model.image import Image
from pipeline.model.report import SmokeReport
from pipeline.prepare import LockedRecipe
from pipeline.reports import (
    report_folder,
)
from pipeline.trees import Composition


@dataclass(frozen=True, slots=True)
class AssembledImage:
    """An image whose layers are in the store.

    `composition` is what all but the last come to, and `states` are rpm's of all files, by NEVRA, as its database has
    them. `reused` names the layers that were not made anew; `changes` is package content that scriptlets or recipes
    altered, in the parent too; `templates` are the files that took part.
    """

    image: Image
    locked: LockedRecipe
    composition: Composition
    states: Mapping[str, tuple[int, ...]]
    changes: tuple[Change, ...]
    reused: tuple[str, ...]
    templates: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """An image that stands in `layout`, what it was `tested` with, and what it `took`.

    `tested` is None if it was not tested at all; `took` is in seconds. `documents` are (name, content) of what the
    report says of the image's making, from `bill` and `record`.
    """

    assembled: AssembledImage
    layout: Path
    tested: SmokeResult | None
    bill: Bill
    record: BuildRecord
    documents: tuple[tuple[str, bytes], ...]
    took: float

    @property
    def image(self) -> Image:
        """The image."""
        return self.assembled.image

    @property
    def locked(self) -> LockedRecipe:
        """The image's recipe with its packages, locked."""
        return self.assembled.locked

    @property
    def changes(self) -> tuple[Change, ...]:
        """Package content that scriptlets or the recipe altered."""
        return self.assembled.changes

    @property
    def reused(self) -> tuple[str, ...]:
        """The names of the layers that were not made anew."""
        return self.assembled.reused

    @property
    def evidence(self) -> Evidence | None:
        """The verdict with what it is about, None where there is none that counts."""
        return self.tested.evidence if self.tested else None

    @property
    def report(self) -> SmokeReport | None:
        """The verdict, None where it was not asked for."""
        return self.tested.report if self.tested else None

    @property
    def verdict_reused(self) -> bool:
        """Return whether the verdict was recalled."""
        return self.tested is not None and self.tested.reused

    @property
    def report_folder(self) -> Path:
        """The folder of the report, beside the layout."""
        return report_folder(self.layout)
