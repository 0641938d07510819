"""`Repository` implementation for one repository in a directory mirror."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    mirror_errors,
    open_without_links,
    sync_names,
)
from pipeline.mirror.backends.directory.lost_tags import misplaced_tag
from pipeline.mirror.backends.directory.mirror_paths import RepositoryPaths
from pipeline.mirror.known_blobs import is_whole, place_blob, regular_file
from pipeline.mirror.protocol import (
    TAG,
    Arrival,
    TagConflict,
    ignore_progress,
    is_auxiliary,
)
from pipeline.mirror.verified_blobs import check_verified, fetch_verified, read_verified
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror
    from pipeline.mirror.gate import Cleared


@dataclass(frozen=True, slots=True)
class DirectoryRepository:
    """A repository of a mirror in a directory: `pipeline.mirror.protocol.Repository`."""

    mirror: DirectoryMirror
    paths: RepositoryPaths

    @property
    def name(self) -> str:
        """The path below the mirror's `repositories` folder."""
        return self.paths.name

    @property
    def url(self) -> str:
        """`dir:PATH/NAME`."""
        return f"{self.mirror.url}/{self.paths.name}"

    @property
    def identity(self) -> str:
        """The repository's name in signatures: `HOST/NAMESPACE/NAME`.

        A directory does not know by which host it is reached: the host was given when it was made (`open_directory`),
        or is `localhost`.
        """
        return f"{self.mirror.host}/{self.paths.name}"

    def exists(self) -> bool:
        """Return whether anything was ever put here. A symlink to a folder is not a repository."""
        with mirror_errors(self.url):
            tags = self.paths.tags
            above = (tags, *tags.parents[: len(tags.relative_to(self.mirror.place.root).parts) - 1])
            return tags.is_dir() and not any(folder.is_symlink() for folder in above)

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest or under a tag, verified; None if missing."""
        with mirror_errors(self.url):
            if isinstance(reference, Digest):
                return self.paths.read(reference)
            return self.paths.tagged(reference) if TAG.fullmatch(reference) else None

    def resolve(self, tag: str) -> Digest | None:
        """Resolve a tag to the digest that it points to now; None if it does not exist."""
        with mirror_errors(self.url):
            return self.paths.target(tag) if TAG.fullmatch(tag) else None

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted, auxiliary ones too."""
        with mirror_errors(self.url):
            return self.paths.tag_names()

    def has_manifest(self, digest: Digest) -> bool:
        """Return whether a manifest or index is here."""
        with mirror_errors(self.url):
            return self.paths.find(digest) is not None

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the mirror has the blob, which all its repositories share."""
        with mirror_errors(self.url):
            return regular_file(self.paths.place.blob(digest)) is not None

    def pruned_by(self, reference: Digest | str) -> str:
        """Return the stamp of the pruning that removed a manifest or tag; "" if none can be undone."""
        from pipeline.mirror.backends.directory.quarantine_folder import find_pruning

        with mirror_errors(self.url):
            return find_pruning(self.paths, reference)

    def misplaced_tag(self, tag: str) -> VerificationError | None:
        """Return the error of what is no tag, in a tag's place; None for a tag, and for nothing."""
        with mirror_errors(self.url):
            path = self.paths.tags / tag
            there = TAG.fullmatch(tag) and self.paths.target(tag) is None and os.path.lexists(path)
            return misplaced_tag(self.paths.place.root, path) if there else None

    def open_blob(self, digest: Digest) -> BinaryIO | None:
        """Open a blob to be served, following no symlink below the mirror's root; None if missing."""
        with mirror_errors(self.url):
            return open_without_links(self.paths.place.root, self.paths.place.blob(digest))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Read a small blob, verified. Raises VerificationError."""
        with mirror_errors(self.url):
            return read_verified(self.paths.place.blob(descriptor.digest), descriptor)

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a blob into the store, verified. Raises VerificationError."""
        with mirror_errors(self.url, writes=False):
            fetch_verified(self.paths.place.blob(descriptor.digest), descriptor, store)

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Read and verify a blob, keeping nothing. Raises VerificationError."""
        with mirror_errors(self.url):
            check_verified(self.paths.place.blob(descriptor.digest), descriptor, advance)

    def file_path(self, digest: Digest) -> str:
        """Return the blob's path below the mirror's root."""
        return f"blobs/sha256/{digest.hex}"

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest."""
        with mirror_errors(self.url):
            return self.paths.referrers(subject)

    # --- writing

    def put_blob(
        self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = (), new: bool = False
    ) -> Arrival:
        """Make sure that a blob is here and intact.

        `elsewhere` is ignored: all repositories share their blobs; so is `new`. Raises VerificationError if `content`
        does not match `descriptor`.
        """
        with mirror_errors(self.url), self.mirror.writing():
            place = self.paths.place
            target = place.blob(descriptor.digest)
            return place_blob(descriptor, content, target, root=place.root, drafts=place.drafts, known=place.known)

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        place = self.paths.place
        with mirror_errors(self.url):
            return is_whole(place.root, place.blob(descriptor.digest), descriptor.digest, descriptor.size, place.known)

    def put_manifest(self, manifest: Manifest, *, new: bool = False) -> bool:
        """Put a manifest or index by its digest; return False if it was there. `new` is ignored.

        Raises VerificationError `blob-missing`, `manifest-missing` if something that it refers to is not here,
        UsageError `media-type-unservable`.
        """
        with self._changing():
            return self.paths.put(manifest)

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and add it to the referrers index.

        Returns False if both were there before.
        """
        with self._changing():
            new = self.paths.put(manifest)
            return self.paths.attach(manifest) or new

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one `subject`, and add them to its referrers index."""
        with self._changing():
            for manifest in manifests:
                self.paths.put(manifest)
            self.paths.attach(*manifests)

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Put a manifest and point an auxiliary tag at it. Raises ValueError, TagConflict."""
        if not TAG.fullmatch(tag) or not is_auxiliary(tag):
            raise ValueError(f"{tag} is not an auxiliary tag")
        with self._changing():
            self._expect(tag, expected)
            self.paths.put(manifest)
            self.paths.move(tag, manifest.descriptor)

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at the cleared manifest; write nothing if it points there already.

        Raises ValueError, TagConflict; VerificationError `manifest-missing`, `blob-missing` if the manifest or anything
        that it refers to is missing.
        """
        if not TAG.fullmatch(tag) or is_auxiliary(tag):
            raise ValueError(f"{tag} is a reserved tag")
        cleared.refuse_other(tag)
        with self._changing():
            self._expect(tag, expected)
            self.paths.require(cleared.manifest)
            self.paths.move(tag, cleared.manifest.descriptor)

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """Hold the repository's lock for moving and signing tags within the block.

        The mirror's publishing lock is taken first: otherwise a waiting pruning, which blocks new publishers, could
        deadlock with this.
        """
        stack = contextlib.ExitStack()
        try:
            with mirror_errors(self.url):
                stack.enter_context(self.mirror.writing())
                self.paths.make()
                stack.enter_context(self.paths.moving())
            yield
        finally:
            with mirror_errors(self.url):  # The list of tags is written at the end.
                stack.close()

    def await_writers(self) -> bool:
        """Return False: tags are compared and swapped under a lock."""
        return False

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`. Raises TagConflict."""
        with self._changing():
            self._expect(tag, expected)
            self.paths.drop(tag)

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, the tags that point to it, and its entry in a referrers index."""
        with self._changing():
            manifest = self.paths.read(digest)
            if manifest is None:
                return
            for tag in self.paths.tag_names():
                if self.paths.target(tag) == digest:
                    self.paths.drop(tag)
            self.paths.detach(manifest)
            self.paths.manifest_file(manifest.descriptor).unlink(missing_ok=True)
            sync_names(self.paths.manifests)

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a referrer; `remove_manifest` does it under the lock that all writers take."""
        self.remove_manifest(digest)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the publishing lock and the repository's lock: no pruning, no other move of a tag."""
        with mirror_errors(self.url), self.mirror.writing():
            self.paths.make()
            with self.paths.locked():
                yield

    def _expect(self, tag: str, expected: Digest | None) -> None:
        found = self.paths.target(tag)
        if found != expected:
            raise TagConflict(tag, found)
