"""Data classes for moves of tags, signed tag statements and the result of publishing."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.enforcement import LimitEnforcement


class MoveCause(StrEnum):
    """Causes of the move of a tag."""

    PUBLISH = "publish"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    COPY = "copy"
    RENEW = "renew"
    """No move: a new statement on where the tag points, with a later expiry."""


NO_HOST = "localhost"
"""The host in names that name the product alone."""


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a tag: from what to what, when, why, and to which version.

    `before` None: the tag was new. `at` is in milliseconds since the epoch. `version` is that of the image `after`.
    """

    tag: str
    before: Digest | None
    after: Digest
    at: int
    why: MoveCause
    version: str = ""


@dataclass(frozen=True, slots=True)
class TagStatement:
    """A signed statement on a tag of `repository` (`HOST/NAMESPACE/NAME`).

    It is a move, or confirms where the tag points (`MoveCause.RENEW`). `number` only grows; `previous` is the digest of
    the manifest that has the move before this one, or of a renewal the move that it renews; `until` (milliseconds since
    the epoch): not valid after this.
    """

    repository: str
    move: Move
    number: int
    previous: Digest | None
    until: int

    @property
    def renews(self) -> bool:
        """True if it renews an earlier statement and moves nothing."""
        return self.move.why is MoveCause.RENEW


@dataclass(frozen=True, slots=True)
class RecordedStatement:
    """A statement, and the digest of the manifest that has it.

    `signature`: the listing's, unverified; b"" if it has none, as those of earlier versions.
    """

    record: Digest
    statement: TagStatement
    signature: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PastMove:
    """A move in the history of a tag.

    `happened`: the tag did point there; else its writer was overtaken or killed between recording and making it.
    `record`: the digest of the manifest that has it, or of an old one the tag. `number` is 0 for old records, which are
    not signed. `other_key`: the fingerprint of the key that it names, where no key signed it with which it was read: a
    claim, unverified.
    """

    move: Move
    record: str
    happened: bool
    number: int = 0
    other_key: Digest | None = None

    @property
    def signed(self) -> bool:
        """Return whether it is a signed statement, and no old record."""
        return self.number > 0


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of one publication to a repository.

    `digest` is the image's or index's; `immutable` its tag for ever; `moved` the floating tags that were moved,
    `unmoved` those that pointed there already.

    Blobs and manifests by how they came there: `uploaded` (digest, bytes), `mounted` and `present` (digest).
    `attached`: the referrers that are new. `limits`: what the kernel held the tested instances to. `requests`: those
    that were sent to a registry, (method and endpoint, number). `settled_until`: milliseconds since the epoch until
    which nothing has to be signed of any of the tags, which were found as they should be; 0 if one was not. `left`:
    (tag, target) of those that stay where a person moved them back to.
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
    requests: tuple[tuple[str, int], ...] = ()
    settled_until: int = 0
    left: tuple[tuple[str, Digest], ...] = ()

    @property
    def bytes_uploaded(self) -> int:
        """Bytes of blobs and manifests that were sent."""
        return sum(size for _, size in self.uploaded)
