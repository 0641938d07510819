"""`Mirror` implementation for an OCI image layout; create or open one.

image-spec 1.1, image-layout.md.

A layout is one repository. Its index.json lists tagged manifests (`org.opencontainers.image.ref.name`) and, without a
tag, referrers, as oras does; the referrers of a subject are found by reading all that is listed. index.json is replaced
in one step, under a lock on `oci-layout`, a file that never changes. There is no garbage collection: a manifest that
lost its tag stays listed without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path

from pipeline.digest import canonical_json
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    make_folder,
    mirror_errors,
    replace_file,
    sweep_drafts,
)
from pipeline.mirror.backends.layout.index_json import DRAFTS, read_entries
from pipeline.mirror.backends.layout.layout_repository import LayoutRepository
from pipeline.mirror.backends.layout.layout_scrub import scrub_layout
from pipeline.mirror.inventory import inventory_by_tags
from pipeline.mirror.known_blobs import KnownInRun
from pipeline.mirror.protocol import NAME, undo_impossible
from pipeline.mirror.repair_sources import RepairSources
from pipeline.mirror.retention.access_log import Pulls
from pipeline.mirror.retention.pruning import Inventory, PruningResult, UndoResult
from pipeline.model.image import Descriptor
from pipeline.model.rules import MirrorRules
from pipeline.model.scrub import ScrubResult
from pipeline.oci import media_types
from pipeline.oci.image_layout import LAYOUT_FILE
from pipeline.progress import Progress
from pipeline.transfer.counters import TrafficCounts


@dataclass(frozen=True, slots=True)
class LayoutMirror:
    """A layout as a mirror of one repository: see `Mirror`. `identity`: its name in signatures."""

    path: Path
    identity: str
    known: KnownInRun = field(default_factory=KnownInRun, compare=False)

    @property
    def url(self) -> str:
        """`oci:PATH`."""
        return f"oci:{self.path}"

    @property
    def traffic(self) -> TrafficCounts:
        """No request is sent to a folder."""
        return TrafficCounts()

    @property
    def namespace(self) -> str:
        """Empty: clients read a layout as files."""
        return ""

    def repository(self, name: str) -> LayoutRepository:
        """Return the one repository, for any valid name. Raises UsageError `repository-name`."""
        if name and not NAME.fullmatch(name):
            raise UsageError("repository-name", f"invalid repository name: '{name[:80]}'", place=self.url)
        return LayoutRepository(self.path, self.identity, self.known)

    def repositories(self) -> tuple[str, ...]:
        """Return one empty name."""
        return ("",)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold nothing: a layout is never pruned."""
        yield

    def inventory(self) -> Inventory:
        """Take an inventory of all that is reachable from the layout's tags."""
        return inventory_by_tags(self, self.repositories())

    def prune(
        self,
        rules: MirrorRules,
        now: int,
        *,
        pulls: Pulls | None = None,
        dry_run: bool = False,
        idle: bool = False,
    ) -> PruningResult:
        """Refuse: raises UsageError `not-a-mirror`."""
        raise UsageError(
            "not-a-mirror",
            f"{self.url} is an OCI layout, in which nothing can be removed",
            place=self.url,
            hint="create a new one with `relbuild copy`",
        )

    def restore(self, stamp: str) -> UndoResult:
        """Refuse: raises UsageError `undo-impossible`."""
        raise undo_impossible(self.url)

    def scrub(self, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
        """Read and verify every blob: see `scrub_layout`."""
        return scrub_layout(self, healing, rate=rate, progress=progress)

    @property
    def blobs(self) -> Path:
        """The folder of all blobs, manifests among them."""
        return self.path / "blobs" / "sha256"

    @property
    def drafts(self) -> Path:
        """The folder of drafts (see `atomic_files`)."""
        return self.path / DRAFTS

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the descriptors in index.json. Raises VerificationError, UsageError `not-a-layout`."""
        return tuple(entry.descriptor for entry in read_entries(self.path))

    def sweep(self) -> int:
        """Remove drafts that killed processes left; return how many."""
        make_folder(self.drafts)
        return sweep_drafts(self.drafts, shared=True)


def open_layout(path: Path, *, create: bool, identity: str | None = None) -> LayoutMirror:
    """Open the layout at `path`; with `create`, make one if nothing or an empty folder is there.

    `identity`: its name in signatures, `localhost/FOLDER` if not given.

    Raises UsageError `not-a-layout`, EnvironmentLacking `mirror-unreachable`.
    """
    root = path.absolute()
    with mirror_errors(f"oci:{root}"):
        if not is_layout(root):
            if not create or (root.exists() and (not root.is_dir() or _foreign(root))):
                raise UsageError(
                    "not-a-layout",
                    f"'{root}' is not an OCI layout" + (", nor empty" if create else ": it has no oci-layout"),
                    place=str(root),
                    hint="give an OCI layout" + (" or a new directory" if create else ""),
                )
            make_folder(root / "blobs" / "sha256")
            make_folder(root / DRAFTS)
            empty = {"schemaVersion": 2, "mediaType": media_types.INDEX, "manifests": []}
            replace_file(canonical_json(empty), root / "index.json", root / DRAFTS)
            replace_file(LAYOUT_FILE, root / "oci-layout", root / DRAFTS)
    return LayoutMirror(root, identity or f"localhost/{root.name}")


def is_layout(path: Path) -> bool:
    """Return whether a folder is an OCI layout."""
    return (path / "oci-layout").is_file()


def _foreign(root: Path) -> bool:
    """Return whether a folder has files that a killed creation of a layout does not leave."""
    return not {path.name for path in root.iterdir()} <= {"blobs", DRAFTS, "index.json"}
