"""Inventory of a mirror, and the plan and result of pruning it.

Times are seconds since the epoch, sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.digest import Digest
from pipeline.model.image import Descriptor


@dataclass(frozen=True, slots=True)
class HeldTag:
    """A tag in an inventory.

    `set_at`: when it was pointed to what it points to now; `pulled_at`: when somebody last pulled by it. None where the
    mirror does not tell.
    """

    name: str
    digest: Digest
    set_at: int | None = None
    pulled_at: int | None = None


@dataclass(frozen=True, slots=True)
class HeldManifest:
    """A manifest or index of one repository, in an inventory.

    `children`: what an index lists; `blobs`: config and layers; `subject`: what it refers to; `since`: when it came, or
    when a tag was last known to point to it, None where nobody knows.
    """

    digest: Digest
    media_type: str
    size: int
    children: tuple[Descriptor, ...] = ()
    blobs: tuple[Descriptor, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    since: int | None = None


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A blob of a mirror. `since`: when it came, None where the mirror does not tell."""

    digest: Digest
    size: int
    since: int | None = None


@dataclass(frozen=True, slots=True)
class HeldRepository:
    """A repository: its tags by name, its manifests by digest, each once and sorted."""

    name: str
    tags: tuple[HeldTag, ...]
    manifests: tuple[HeldManifest, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that a mirror holds, as far as it tells.

    Repositories by name, and blobs by digest, which all repositories share; each once and sorted.
    """

    repositories: tuple[HeldRepository, ...]
    blobs: tuple[HeldBlob, ...]


class PrunedKind(StrEnum):
    """Kinds of what goes, in the order in which they go.

    Nothing that still stands refers to what is gone.
    """

    TAG = "tag"
    MANIFEST = "manifest"
    BLOB = "blob"


@dataclass(frozen=True, slots=True)
class PruningEntry:
    """One thing that goes, or is spared, and why.

    `repository` is empty for a blob, `tag` for all but a tag; `digest` of a tag is what it points to, and its `size` is
    0: what it points to is counted by itself.
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
    """A list of referrers that must be written without some of its entries.

    The list under a tag that stays, `present`, names what is not there or will not be: `without` is to be taken out.
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

    What goes (`tags`, `manifests`, `blobs`), which lists of referrers are written anew, what nothing refers to and
    is spared all the same; all sorted. `notes`: what a keeper should know of how this was decided."""

    tags: tuple[PruningEntry, ...] = ()
    manifests: tuple[PruningEntry, ...] = ()
    blobs: tuple[PruningEntry, ...] = ()
    relisted: tuple[ReferrersUpdate, ...] = ()
    spared: tuple[PruningEntry, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all manifests and blobs that go."""
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
    """Result of a pruning, or with `dry_run` what it would be.

    `size`: bytes that were taken away, counted from what was moved or
    removed and not from the plan. `stamp`: under which all of it can be brought back; empty where it cannot be, or
    where there was nothing to do. `refused`: what the plan has and this mirror cannot do, with the reason.
    `instructions`: what people must do themselves; `size_after`: bytes that it would free then, at most."""

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

    `stamps`: the prunings that were undone, the last first; `tags`: (repository, tag); `left`: those that exist again
    meanwhile and were left as they are.
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
