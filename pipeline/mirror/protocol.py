"""Interfaces of a mirror and of one repository on it, which each kind of mirror implements.

All other code uses mirrors through them only. They do not decide what may be published: tags by which people pull are
moved by `point` alone, which takes what the gate has cleared. All other tags are auxiliary: they have reserved names
(`is_auxiliary`) by which nobody pulls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
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
    from pipeline.transfer import TrafficCounts

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""distribution-spec 1.1, "Pulling manifests"."""

NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
"""Form of a repository's name (distribution-spec 1.1)."""

DELETE_UNSUPPORTED = "delete-unsupported"
"""Code of the error of a mirror that does not allow deletions."""

_AUXILIARY = re.compile(r"sha256-[0-9a-f]{64}(?:\.(?:sig|att|sbom))?|move\..+|sources-[0-9a-f]{12}|prune\.[0-9a-f]{32}")


def is_auxiliary(tag: str) -> bool:
    """Return whether a tag is auxiliary: it belongs to an image and is not one to pull.

    A referrers index (`sha256-HEX`), cosign's signatures (`sha256-HEX.sig`), the record of a move (`move.…`), an
    image's source packages (`sources-…`), a pruning in progress (`prune.…`).
    """
    return _AUXILIARY.fullmatch(tag) is not None


def ignore_progress(size: int) -> None:
    """Callback for numbers of bytes that ignores them."""


class Arrival(StrEnum):
    """Result of putting a blob: found there, mounted from another repository, or uploaded."""

    PRESENT = "present"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


class TagConflict(Exception):
    """Error of a move or removal of a tag that does not point to the expected digest.

    `found`: the digest to which it points (None: it does not exist); `written`: the tag was moved here, and then by
    somebody else (only where a mirror cannot compare and swap).
    """

    def __init__(self, tag: str, found: Digest | None, *, written: bool = False) -> None:
        super().__init__(f"tag '{tag}' was moved to {found} meanwhile")
        self.tag = tag
        self.found = found
        self.written = written


class Repository(Protocol):
    """One repository of a mirror: read, put, tag and remove manifests and blobs.

    All methods raise EnvironmentLacking when the mirror cannot be reached or refuses, and VerificationError when it
    returns content that does not match its digest.
    """

    @property
    def name(self) -> str:
        """The repository's name on the mirror, as in the operator's rules; empty for a layout."""

    @property
    def url(self) -> str:
        """The address, as a person writes it.

        `registry://HOST/NAMESPACE/NAME`, `dir:PATH/NAME`, `oci:PATH`.
        """

    @property
    def identity(self) -> str:
        """The name by which clients pull, `HOST/NAMESPACE/NAME`: signatures contain it."""

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest (verified) or under a tag; None if missing."""

    def resolve(self, tag: str) -> Digest | None:
        """Resolve a tag to the digest that it points to now; None if it does not exist."""

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted, auxiliary ones too."""

    def has_manifest(self, digest: Digest) -> bool:
        """Return whether a manifest or index is here."""

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is here."""

    def pruned_by(self, reference: Digest | str) -> str:
        """Return the stamp of the pruning that removed a manifest or tag; "" if none can be undone."""

    def misplaced_tag(self, tag: str) -> VerificationError | None:
        """Return the error of what is no tag, in a tag's place; None for a tag, and for nothing."""

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Read a small blob (config, attestation; at most 64 MiB) into memory, verified."""

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Copy a blob of any size into the store, verified; nothing if it is there."""

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Read a blob of any size and verify size and digest, keeping nothing.

        `advance` is called with the number of bytes of each piece. Raises VerificationError `blob-missing`,
        `blob-damaged`; `blob-size` if it is intact and has another size than `descriptor`.
        """

    def file_path(self, digest: Digest) -> str:
        """Return the path at which web servers serve a blob, below the mirror's; "" if none do."""

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest, from the referrers API or fallback tag."""

    # --- writing

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and intact.

        On a folder it is read unless it is known to be intact (see `known_blobs`). A registry's answer with digest and
        size counts, unless the mirror was opened to read back. Called before a manifest with the blob is put.
        """

    def put_blob(
        self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = (), new: bool = False
    ) -> Arrival:
        """Make sure that a blob is here and `holds_whole`; a corrupt one is replaced.

        `elsewhere`: names of repositories on the same mirror that may have it; `new`: nothing that refers to it is here
        yet, so a registry is not asked for it before it is sent. Raises VerificationError `mirror-rotten` where a
        corrupt one cannot be replaced.
        """

    def put_manifest(self, manifest: Manifest, *, new: bool = False) -> bool:
        """Put a manifest or index by its digest; return False if it was there.

        The blobs and manifests to which it refers must be here already. `new`: as in `put_blob`.
        """

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and make sure that `referrers` lists it.

        Also while others attach to the same subject. Returns False if both were there before.
        """

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one `subject` and were not listed, and list them at once.

        Also while others attach to the same subject.
        """

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Point an auxiliary tag at a manifest, if it points to `expected` now.

        `expected` None: the tag must not exist.

        Raises ValueError if `tag` is not auxiliary, TagConflict.
        """

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at the cleared image or index, if it points to `expected` now.

        The manifest must be here already.

        `expected` None: the tag must not exist. Where the mirror cannot compare and swap, see `await_writers`.

        Raises ValueError if `tag` is auxiliary or not among the cleared tags, TagConflict.
        """

    def moving(self) -> AbstractContextManager[None]:
        """Hold a lock while tags are resolved, and their moves signed, made and confirmed.

        Otherwise a tag could move elsewhere and back between its resolution and its move, and the chain of signed moves
        would lack that. Mirrors without locks hold nothing. Not reentrant.
        """

    def await_writers(self) -> bool:
        """Wait until writers who resolved a tag before its last move here have written it.

        Where a mirror cannot compare and swap, they overwrite the move: resolve the tag again then. Returns False, at
        once, where that cannot be.
        """

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`. Raises TagConflict."""

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, with its tags and its entry among referrers."""

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a referrer to which no tag points, while others may attach to the same subject.

        Its entry in the referrers index is removed first: registries refuse an index that lists a missing manifest.
        """


class Mirror(Protocol):
    """A mirror: its repositories by name, and its maintenance (inventory, pruning, scrubbing).

    Implementations can use code that works on any mirror: `inventory.inventory_by_tags`, `retention.deletion`,
    `remote_scrub`.
    """

    @property
    def url(self) -> str:
        """The address, as a person writes it."""

    def repository(self, name: str) -> Repository:
        """Return the repository `name`, which need not exist. Raises UsageError `repository-name`."""

    def repositories(self) -> tuple[str, ...]:
        """Return the names of all repositories, sorted; empty where a mirror does not list them."""

    @property
    def namespace(self) -> str:
        """The path before repositories' names in clients' requests; empty if there is none."""

    @property
    def traffic(self) -> TrafficCounts:
        """The requests that were sent to it so far; none to a folder."""

    def writing(self) -> AbstractContextManager[None]:
        """Hold the publishing lock, so that nothing is pruned meanwhile.

        Mirrors without locks hold nothing.
        """

    # --- maintenance

    def inventory(self) -> Inventory:
        """List all tags, manifests and blobs that can be found.

        Raises VerificationError for a manifest that cannot be read: what it refers to is unknown, so nothing could
        safely be pruned.
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

        `now` is seconds since the epoch; `pulls`: when tags were last pulled, where that is known; `idle`: the operator
        assures that nobody publishes. With `dry_run` nothing is changed.

        Raises UsageError `not-a-mirror` where nothing is ever pruned, EnvironmentLacking, VerificationError.
        """

    def restore(self, stamp: str) -> UndoResult:
        """Undo the pruning `stamp` and those after it.

        Raises UsageError `quarantine-unknown`; `undo-impossible` where prunings are final.
        """

    def scrub(self, healing: RepairSources, *, rate: int, progress: Progress) -> ScrubResult:
        """Read and verify everything; restore what is corrupt or missing from `healing`.

        At most `rate` bytes are read a second (0: no limit). Raises EnvironmentLacking if the mirror cannot be reached.
        """


def undo_impossible(url: str) -> UsageError:
    """Make the error of a mirror whose prunings are final."""
    return UsageError("undo-impossible", "only directory mirrors have a quarantine to restore from", place=url)
