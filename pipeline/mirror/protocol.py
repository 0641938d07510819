"""The protocols of a mirror and of one repository on it.

Everything else in this room sees a mirror through them: the three kinds of mirror are three implementations of
`Repository`.

Nothing here decides whether something may be published. Tags by which people pull are moved by `point` alone, which
wants what the gate has cleared; all other tags have names of their own (`is_auxiliary`), which nobody pulls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.mirror.gate import Cleared
    from pipeline.mirror.repair_sources import RepairSources
    from pipeline.mirror.retention.access_log import Pulls
    from pipeline.mirror.retention.pruning import Inventory, PruningResult, UndoResult
    from pipeline.model.rules import MirrorRules
    from pipeline.model.scrub import ScrubResult
    from pipeline.progress import Progress

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""distribution-spec 1.1, "Pulling manifests"."""

NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
"""A repository's name (distribution-spec 1.1)."""

DELETE_UNSUPPORTED = "delete-unsupported"
"""The code of the error by which a mirror says that it does not delete."""

_AUXILIARY = re.compile(r"sha256-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?|move\..+|sources-[0-9a-f]{12}|prune\.[0-9a-f]{32}")


def is_auxiliary(tag: str) -> bool:
    """Return whether a tag is auxiliary: it refers to images and names none.

    A fallback index of referrers (`sha256-HEX`), a cosign signature (`sha256-HEX.sig`), the record of a move
    (`move.…`), an image's sources (`sources-…`), a pruning that is under way (`prune.…`).
    """
    return _AUXILIARY.fullmatch(tag) is not None


def ignore_progress(size: int) -> None:
    """Nobody wants to know how much was read."""


class Arrival(StrEnum):
    """Way in which a blob came to be where it is wanted."""

    PRESENT = "present"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class TagConflict(Exception):
    """The error of a move when somebody else moved the tag meanwhile.

    The tag is not (or did not stay) what the one who moves it takes it for. `found` is what it points to; `written`: it
    was moved, and moved on by another (only where nothing can compare and swap).
    """

    def __init__(self, tag: str, found: Digest | None, *, written: bool = False) -> None:
        super().__init__(f"tag '{tag}' was moved to {found} meanwhile")
        self.tag = tag
        self.found = found
        self.written = written


class Repository(Protocol):
    """One repository of a mirror.

    All methods raise EnvironmentLacking when the mirror cannot be reached or forbids it, and VerificationError when it
    gives other bytes than a digest promises.
    """

    @property
    def name(self) -> str:
        """The repository's name on the mirror; empty for a layout, which has but one.

        The keeper's rules speak of it by this name.
        """

    @property
    def url(self) -> str:
        """As a person names it: `registry://HOST/NAMESPACE/NAME`, `dir:PATH/NAME`, `oci:PATH`."""

    @property
    def identity(self) -> str:
        """The repository's name as those who pull it write it: `HOST/NAMESPACE/NAME`.

        Simple signing puts it into what is signed.
        """

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest or under a tag; None if there is none.

        What is asked for by a digest is verified.
        """

    def resolve(self, tag: str) -> Digest | None:
        """Resolve a tag to the digest that it points to now; None if it does not exist."""

    def tags(self) -> tuple[str, ...]:
        """All tags, sorted, auxiliary ones too."""

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is here."""

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob (config, attestation; at most 64 MiB), verified."""

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a blob of any size into the store, verified; nothing happens if it is there."""

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Read a blob of any size to its end, and compare size and digest with what is promised.

        Nothing is kept; `advance` is told of the bytes. Raises VerificationError `blob-missing`, `blob-damaged`.
        """

    def file_path(self, digest: Digest) -> str:
        """Return the path at which a web server serves a blob as a file; empty if none does.

        The path is below the mirror's address.
        """

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest.

        They are from the referrers API or the fallback tag.
        """

    # --- writing

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest.

        They are read unless they were in this run, or by a scrub since which nothing changed. For whoever is about to
        put something that needs the blob.
        """

    def put_blob(self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = ()) -> Arrival:
        """Make sure that a blob is here and `holds_whole`; a corrupt one is replaced.

        `elsewhere`: names of repositories of the same mirror that may have it. Raises VerificationError `mirror-rotten`
        where a corrupt one cannot be replaced.
        """

    def put_manifest(self, manifest: Manifest) -> bool:
        """Put a manifest or index by its digest; return False if it was there.

        What it refers to must be here already.
        """

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and make sure that `referrers` lists it.

        It is put by its digest, and listed also when others attach at the same time. Returns False if that was so
        before.
        """

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Point an auxiliary tag at a manifest, if it points to `expected` now.

        `expected` None: the tag must not exist.

        Raises ValueError if `tag` is not auxiliary, TagConflict.
        """

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at the image or index that was cleared, if it points to `expected` now.

        `expected` None: the tag must not exist. The manifest of what was cleared is here already. Where the mirror
        cannot compare and swap, the tag is read back.

        Raises ValueError if `tag` is auxiliary or not one of those that were cleared, TagConflict.
        """

    def moving(self) -> AbstractContextManager[None]:
        """Hold while tags are looked at, their moves signed, made and settled.

        Where a mirror has locks nobody else does so meanwhile: between the look and the move a tag could go elsewhere
        and come back, and the chain of signed moves would lack that. Elsewhere nothing is held. Not to be held twice.
        """

    def overtaken(self, moved: Mapping[str, Digest]) -> tuple[str, ...]:
        """Return the tags, of some that were just moved to these digests, that point elsewhere.

        Where a mirror cannot compare and swap, somebody who looked before they were moved may write after that, and
        take them away: they are looked at when that has had its time. Elsewhere it cannot be, and nothing is looked at.
        """

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`. Raises TagConflict."""

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, and with it what points to it."""

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a referrer to which no tag points, while others list more of its subject.

        A referrer is a manifest that refers to another, its subject. First it is removed from the list, because
        registries refuse a list that names what is gone.
        """


class Mirror(Protocol):
    """A mirror: repositories by name.

    Those who implement it may stand on what works on any mirror: `inventory.inventory_by_tags`, `retention.deletion`,
    `remote_scrub`.
    """

    @property
    def url(self) -> str:
        """As a person names it."""

    def repository(self, name: str) -> Repository:
        """The repository with a name, which need not exist yet. Raises UsageError `repository-name`."""

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories of this mirror, sorted, as far as it tells."""

    @property
    def namespace(self) -> str:
        """The path before the names of its repositories in what clients request.

        Empty if there is none.
        """

    def writing(self) -> AbstractContextManager[None]:
        """To be held while something is published: prune spares what arrives meanwhile."""

    # --- keeping

    def inventory(self) -> Inventory:
        """List all that the mirror holds, as far as can be found out.

        Raises VerificationError for a manifest that cannot be read: what it needs is not known, so nothing can be said
        to be unneeded.
        """

    def prune(
        self,
        rules: MirrorRules,
        now: int,
        *,
        pulls: Pulls | None = None,
        dry_run: bool = False,
        idle: bool = False,
    ) -> PruningResult:
        """Remove what the rules do not keep.

        `now` is seconds since the epoch; `pulls`: when tags were last pulled, where that is known; `idle`: the keeper
        vouches that nobody publishes. With `dry_run` nothing is changed.

        Raises UsageError `not-a-mirror` where nothing is ever pruned, EnvironmentLacking, VerificationError.
        """

    def restore(self, stamp: str) -> UndoResult:
        """Bring back what went with the pruning `stamp` and with those after it. Raises UsageError
        `quarantine-unknown`; `undo-impossible` where what is pruned is gone."""

    def scrub(self, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
        """Read everything, compare it with its digests, and heal what is corrupt or missing.

        At most `rate` bytes are read a second (0: no limit). Raises EnvironmentLacking if the mirror cannot be reached.
        """


def undo_impossible(url: str) -> UsageError:
    """The error of a mirror that cannot bring back what was pruned."""
    return UsageError("undo-impossible", "only directory mirrors have a quarantine to restore from", place=url)
