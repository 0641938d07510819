"""What a publication did, and the moves of tags that make up a mirror's history."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.digest import Digest
from pipeline.model.enforcement import LimitEnforcement


class Why(StrEnum):
    """What moved a tag."""

    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a tag: from what to what (`before` None: the tag was new), when (milliseconds since the epoch), why,
    and the version of what it points to since."""

    tag: str
    before: Digest | None
    after: Digest
    at: int
    why: Why
    version: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """A move as the history tells it. `happened`: the tag did point there; else whoever wrote the move down was
    overtaken or killed before making it. `record` is the tag under which it is written down."""

    move: Move
    record: str
    happened: bool


@dataclass(frozen=True, slots=True)
class Publication:
    """What was published where. `digest` is the image's or index's; `immutable` its tag for ever; `moved` the floating
    tags that were moved, `unmoved` those that pointed there already.

    Blobs and manifests by how they came there: `uploaded` (digest, bytes), `mounted` and `present` (digest).
    `attached`: the referrers that are new. `limits`: what the kernel held the tested instances to.
    """

    repository: str
    digest: Digest
    immutable: str
    moved: tuple[Move, ...]
    unmoved: tuple[str, ...]
    uploaded: tuple[tuple[Digest, int], ...]
    mounted: tuple[Digest, ...]
    present: tuple[Digest, ...]
    attached: tuple[Digest, ...]
    limits: tuple[LimitEnforcement, ...] = ()

    @property
    def bytes_uploaded(self) -> int:
        """Bytes of blobs and manifests that were sent."""
        return sum(size for _, size in self.uploaded)
