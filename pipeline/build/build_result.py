"""Data classes for the results of a build: the assembled image, and the tested one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.launch import SmokeResult
from pipeline.layers import BuiltLayer
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.bill import Bill, BilledPackage, BuildRecord
from pipeline.model.change import Change
from pipeline.model.evidence import Evidence
from pipeline.model.image import Image
from pipeline.model.report import SmokeReport
from pipeline.model.scriptlets import ToleratedFailure
from pipeline.prepare import LockedRecipe
from pipeline.reports import (
    report_folder,
)
from pipeline.trees import Composition

if TYPE_CHECKING:
    from pipeline.build.begun_snapshot import BegunSnapshot
    from pipeline.build.build_report import DraftedDocuments
    from pipeline.layers.recipe_files import ReadTemplates


@dataclass(frozen=True, slots=True)
class AssembledImage:
    """An image whose layers are in the store.

    `composition` is that of all layers but the last, `billed` what its bill says of each package, and `layers` are its
    own package layers. `states` are rpm's states of all files, by NEVRA, as in its database. `reused` names the layers
    that were recalled; `changes` is package content that scriptlets or recipes changed, in the parent too; `templates`
    are those that were read. `failed_scriptlets` were let through, in the parent too; `unused_waivers` are
    warnings about waivers that matched none. `drafted` are its documents, and `begun` its snapshot, as far as they were
    made beside the packing of its layers.
    """

    image: Image
    locked: LockedRecipe
    composition: Composition
    billed: tuple[BilledPackage, ...]
    layers: tuple[BuiltLayer, ...]
    states: Mapping[str, tuple[int, ...]]
    changes: tuple[Change, ...]
    reused: tuple[str, ...]
    templates: ReadTemplates
    failed_scriptlets: tuple[ToleratedFailure, ...] = ()
    unused_waivers: tuple[str, ...] = ()
    drafted: DraftedDocuments | None = None
    begun: BegunSnapshot | None = None


@dataclass(frozen=True, slots=True)
class BuildResult:
    """An image that was written to `layout`, and the result of its smoke test.

    `tested` is None if it was not tested at all; `took` is in seconds. `documents` are (name, content) of the documents
    in its report, from `bill` and `record`.
    """

    assembled: AssembledImage
    layout: Path
    tested: SmokeResult | None
    bill: Bill
    record: BuildRecord
    documents: tuple[tuple[str, bytes], ...]
    took: float

    @property
    def member(self) -> bool:
        """Return whether it is one of several architectures of its recipe."""
        return self.layout.name != self.image.name

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
        """Package content that scriptlets or the recipe changed."""
        return self.assembled.changes

    @property
    def failed_scriptlets(self) -> tuple[ToleratedFailure, ...]:
        """Scriptlets that failed and that the recipe, or the parent's, let through."""
        return self.assembled.failed_scriptlets

    @property
    def reused(self) -> tuple[str, ...]:
        """The names of the layers that were recalled."""
        return self.assembled.reused

    @property
    def evidence(self) -> Evidence | None:
        """The evidence of the smoke test, None if there is none."""
        return self.tested.evidence if self.tested else None

    @property
    def report(self) -> SmokeReport | None:
        """The report of the smoke test, None if it was not tested."""
        return self.tested.report if self.tested else None

    @property
    def verdict_reused(self) -> bool:
        """Return whether the verdict was recalled."""
        return self.tested is not None and self.tested.reused

    @property
    def unchanged(self) -> bool:
        """Return whether nothing was done again, and the image passed before."""
        again = {layer.name for layer in self.image.layers} - set(self.reused)
        passed = self.verdict_reused and self.report is not None and self.report.passed
        return passed and not again and not self.locked.wrote

    @property
    def report_folder(self) -> Path:
        """The folder of the report, beside the layout."""
        return report_folder(self.layout)
