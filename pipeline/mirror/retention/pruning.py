"""Data classes of pruning: a mirror's inventory, the plan, results of pruning and undoing.

Times are seconds since the epoch, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor


@dataclass(frozen=True, slots=True)
class HeldTag:
    """A tag in an inventory.

    `set_at`: when it was pointed at `digest`; `pulled_at`: when it was last pulled. None where that is unknown.
    """

    name: str
    digest: Digest
    set_at: int | None = None
    pulled_at: int | None = None


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest or index of one repository, in an inventory.

    `children`: entries of an index; `blobs`: config and layers; `subject`: of a referrer; `since`: when it arrived, or
    when a tag was last known to point to it, None where that is unknown. `planted`: nobody published it, since it is
    malformed, and `blobs` are all whose digests it names.
    """

    digest: Digest
    media_type: str
    size: int
    children: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    since: int | None = None
    planted: bool = False


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A blob in an inventory. `since`: when it arrived, None where that is unknown."""

    digest: Digest
    size: int
    since: int | None = None


@dataclass(frozen=True, slots=True)
class HeldRepository:
    """A repository in an inventory: tags sorted by name, manifests sorted by digest, each once.

    `lost_tags`: what was in the place of tags was put aside, and may have led to any manifest.
    """

    name: str
    tags: tuple[HeldTag, ...]
    manifests: tuple[HeldManifest, ...]
    lost_tags: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """All content of a mirror that could be found.

    Repositories sorted by name; blobs, which all repositories share, sorted by digest; each once.
    """

    repositories: tuple[HeldRepository, ...]
    blobs: tuple[HeldBlob, ...]


class PrunedKind(StrEnum):
    """Kinds of pruned content, in the order of removal: so no reference dangles meanwhile."""

    TAG = "tag"
    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True, slots=True)
class PruningEntry:
    """One tag, manifest or blob that is pruned or spared, and why.

    `repository` is empty for a blob, `tag` for all but a tag. For a tag, `digest` is its target and `size` 0: the
    target has its own entry.
    """

    kind: PrunedKind
    repository: str
    tag: str
    digest: Digest
    size: int
    why: str

    def __str__(self) -> str:
        if self.kind is PrunedKind.TAG:
            return f"{self.repository}:{self.tag} → {self.digest}: {self.why}"
        where = f"{self.repository}@" if self.repository else ""
        return f"{self.kind} {where}{self.digest} ({self.size} bytes): {self.why}"

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "kind": str(self.kind),
            **({"repository": self.repository} if self.repository else {}),
            **({"tag": self.tag} if self.tag else {}),
            "digest": str(self.digest),
            "size": self.size,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class ReferrersUpdate:
    """A referrers index to rewrite: the one under `tag`, now `present`, loses `without`.

    They are the manifests that are pruned or missing.
    """

    repository: str
    tag: str
    present: Digest
    without: tuple[Digest, ...]

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "repository": self.repository,
            "tag": self.tag,
            "present": str(self.present),
            "without": [str(digest) for digest in self.without],
        }


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """Plan of a pruning.

    `tags`, `manifests` and `blobs` are removed; `relisted`: referrers indexes to rewrite; `spared`: unreferenced
    content that is kept for now; all sorted. `notes`: remarks on the decision for the operator.
    """

    tags: tuple[PruningEntry, ...] = ()
    manifests: tuple[PruningEntry, ...] = ()
    blobs: tuple[PruningEntry, ...] = ()
    relisted: tuple[ReferrersUpdate, ...] = ()
    spared: tuple[PruningEntry, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all manifests and blobs that are removed."""
        return sum(one.size for one in (*self.manifests, *self.blobs))

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to do."""
        return not (self.tags or self.manifests or self.blobs or self.relisted)

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "bytes": self.size,
            "tags": [one.json() for one in self.tags],
            "manifests": [one.json() for one in self.manifests],
            "blobs": [one.json() for one in self.blobs],
            "relisted": [one.json() for one in self.relisted],
            "spared": [one.json() for one in self.spared],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class PruningResult:
    """Result of a pruning; with `dry_run`, what it would be.

    `size`: bytes that were removed, counted from the files and not from the plan. `stamp`: by which the pruning can be
    undone; empty where that is impossible or there was nothing to do. `refused`: entries of the plan that the mirror
    did not remove, with the reason. `instructions`: the operator's steps to free space; `size_after`: bytes that these
    free, at most.
    """

    mirror: str
    dry_run: bool
    plan: PruningPlan
    size: int
    stamp: str = ""
    refused: tuple[PruningEntry, ...] = ()
    instructions: tuple[str, ...] = ()
    size_after: int = 0

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "mirror": self.mirror,
            "dry_run": self.dry_run,
            "bytes": self.size,
            "stamp": self.stamp,
            "refused": [one.json() for one in self.refused],
            "instructions": list(self.instructions),
            "bytes_after": self.size_after,
            "plan": self.plan.json(),
        }


@dataclass(frozen=True, slots=True)
class UndoResult:
    """Result of undoing prunings.

    `stamps`: the prunings that were undone, the last first; `tags`: restored (repository, tag); `left`: tags that exist
    again meanwhile and were left as they are; `manifests`, `blobs`: how many were restored.
    """

    mirror: str
    stamps: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    left: tuple[tuple[str, str], ...]
    manifests: int
    blobs: int

    def json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "mirror": self.mirror,
            "stamps": list(self.stamps),
            "tags": [f"{repository}:{tag}" for repository, tag in self.tags],
            "left": [f"{repository}:{tag}" for repository, tag in self.left],
            "manifests": self.manifests,
            "blobs": self.blobs,
        }
