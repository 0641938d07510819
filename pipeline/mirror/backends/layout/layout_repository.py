"""`Repository` implementation for the one repository of an OCI layout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.atomic_files import (
    file_locked,
    make_folder,
    mirror_errors,
    open_without_links,
    replace_file,
    sweep_drafts,
)
from pipeline.mirror.backends.layout.index_json import (
    DRAFTS,
    index_entry,
    read_entries,
    tidy_entries,
    write_entries,
)
from pipeline.mirror.known_blobs import (
    KnownInRun,
    is_whole,
    place_blob,
    set_aside,
)
from pipeline.mirror.protocol import (
    TAG,
    Arrival,
    TagConflict,
    ignore_progress,
    is_auxiliary,
)
from pipeline.mirror.references import fallback_tag, media_type_of, references, referrer_of, require_complete
from pipeline.mirror.verified_blobs import check_verified, fetch_verified, read_verified
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci import blob_path
from pipeline.oci.image_manifest import DOCUMENT_LIMIT, descriptor_json
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.mirror.gate import Cleared


@dataclass(frozen=True, slots=True)
class LayoutRepository:
    """The repository in a layout: `pipeline.mirror.protocol.Repository`."""

    path: Path
    identity: str
    known: KnownInRun = field(default_factory=KnownInRun, compare=False)

    @property
    def name(self) -> str:
        """Empty: a layout has only one repository."""
        return ""

    @property
    def url(self) -> str:
        """`oci:PATH`."""
        return f"oci:{self.path}"

    # --- reading

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest or under a tag, verified; None if missing."""
        with mirror_errors(self.url):
            digest = self._resolve(reference) if isinstance(reference, str) else reference
            return self._read(digest) if digest else None

    def resolve(self, tag: str) -> Digest | None:
        """Resolve a tag to the digest that it points to now; None if it does not exist."""
        with mirror_errors(self.url):
            return self._resolve(tag)

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted, auxiliary ones too."""
        with mirror_errors(self.url):
            return tuple(sorted({entry.tag for entry in read_entries(self.path) if entry.tag}))

    def has_manifest(self, digest: Digest) -> bool:
        """Return whether a manifest or index is here."""
        with mirror_errors(self.url):
            return self._read(digest) is not None

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is here."""
        with mirror_errors(self.url):
            return blob_path(self.path, digest).is_file()

    def open_blob(self, digest: Digest) -> BinaryIO | None:
        """Open a blob to be served, following no symlink below the layout's folder; None if missing."""
        with mirror_errors(self.url):
            return open_without_links(self.path, blob_path(self.path, digest))

    def pruned_by(self, reference: Digest | str) -> str:
        """Return "": a layout is never pruned."""
        return ""

    def misplaced_tag(self, tag: str) -> None:
        """Return None: the index has all tags."""

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Read a small blob, verified. Raises VerificationError."""
        with mirror_errors(self.url):
            return read_verified(blob_path(self.path, descriptor.digest), descriptor)

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a blob into the store, verified. Raises VerificationError."""
        with mirror_errors(self.url, writes=False):
            fetch_verified(blob_path(self.path, descriptor.digest), descriptor, store)

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Read and verify a blob, keeping nothing. Raises VerificationError."""
        with mirror_errors(self.url):
            check_verified(blob_path(self.path, descriptor.digest), descriptor, advance)

    def file_path(self, digest: Digest) -> str:
        """Return an empty path: web servers do not serve layouts."""
        return ""

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest.

        They are found in index.json, and in a referrers index that was copied here under its fallback tag.
        """
        with mirror_errors(self.url):
            entries = read_entries(self.path)
            listed = {entry.descriptor.digest for entry in entries}
            fallback = self._resolve(fallback_tag(subject))
            index = self._read(fallback) if fallback else None
            if index is not None:
                listed |= {entry.digest for entry in references(index).manifests}
            found = (self._read(digest) for digest in sorted(listed))
            return tuple(referrer_of(one) for one in found if one and references(one).subject == subject)

    # --- writing

    def put_blob(
        self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = (), new: bool = False
    ) -> Arrival:
        """Make sure that a blob is here and intact; `elsewhere` and `new` are ignored.

        Raises VerificationError if `content` does not match `descriptor`.
        """
        with mirror_errors(self.url):
            make_folder(self._drafts)
            target = blob_path(self.path, descriptor.digest)
            return place_blob(descriptor, content, target, root=self.path, drafts=self._drafts, known=self.known)

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        with mirror_errors(self.url):
            target = blob_path(self.path, descriptor.digest)
            return is_whole(self.path, target, descriptor.digest, descriptor.size, self.known)

    def put_manifest(self, manifest: Manifest, *, new: bool = False) -> bool:
        """Put a manifest or index by its digest; return False if it was there. `new` is ignored.

        Raises VerificationError `blob-missing`, `manifest-missing` if something that it refers to is not here.
        """
        with mirror_errors(self.url):
            return self._put(manifest)

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and list it in index.json without a tag.

        Returns False if both were there before.
        """
        with self._changing():
            if references(manifest).subject is None:
                raise ValueError(f"{manifest.digest} has no subject")
            new = self._put(manifest)
            entries = read_entries(self.path)
            if any(entry.descriptor.digest == manifest.digest for entry in entries):
                return new
            listed = referrer_of(manifest)
            write_entries(
                self.path,
                [*entries, index_entry(descriptor_json(listed.descriptor) | {"artifactType": listed.artifact_type})],
            )
            return True

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one `subject`, and list them in index.json without a tag."""
        for manifest in manifests:
            self.attach(manifest)

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Put a manifest and point an auxiliary tag at it. Raises ValueError, TagConflict."""
        if not TAG.fullmatch(tag) or not is_auxiliary(tag):
            raise ValueError(f"{tag} is not an auxiliary tag")
        with self._changing():
            self._expect(tag, expected)
            self._put(manifest)
            self._move(tag, manifest.descriptor)

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
            if not blob_path(self.path, cleared.manifest.digest).is_file():
                raise VerificationError(
                    "manifest-missing", f"manifest {cleared.manifest.digest} not found", place=self.url
                )
            self._require_complete(cleared.manifest)
            self._move(tag, cleared.manifest.descriptor)

    def moving(self) -> contextlib.AbstractContextManager[None]:
        """Hold nothing: several writers of one layout are not expected."""
        return contextlib.nullcontext()

    def await_writers(self) -> bool:
        """Return False: tags are compared and swapped under a lock."""
        return False

    # --- removing

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag that points to `expected`; its manifest stays listed. Raises TagConflict."""
        with self._changing():
            self._expect(tag, expected)
            write_entries(
                self.path,
                tidy_entries(entry.named("") if entry.tag == tag else entry for entry in read_entries(self.path)),
            )

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, and its entries in index.json. Its blobs stay."""
        with self._changing():
            entries = read_entries(self.path)
            rest = [entry for entry in entries if entry.descriptor.digest != digest]
            if len(rest) != len(entries):
                write_entries(self.path, rest)
            if self._read(digest) is not None:
                blob_path(self.path, digest).unlink(missing_ok=True)

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a referrer; `remove_manifest` does it under the lock that all writers take."""
        self.remove_manifest(digest)

    # --- index.json

    @property
    def _drafts(self) -> Path:
        return self.path / DRAFTS

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with mirror_errors(self.url), file_locked(self.path / "oci-layout"):
            make_folder(self._drafts)
            sweep_drafts(self._drafts, shared=True)
            yield

    def _resolve(self, tag: str) -> Digest | None:
        return next((entry.descriptor.digest for entry in read_entries(self.path) if tag and entry.tag == tag), None)

    def _expect(self, tag: str, expected: Digest | None) -> None:
        found = self._resolve(tag)
        if found != expected:
            raise TagConflict(tag, found)

    def _move(self, tag: str, descriptor: Descriptor) -> None:
        entries = read_entries(self.path)
        if self._resolve(tag) == descriptor.digest:
            return
        known = next((entry for entry in entries if entry.descriptor.digest == descriptor.digest), None)
        moved = (known or index_entry(descriptor_json(descriptor))).named(tag)
        others = (entry.named("") if entry.tag == tag else entry for entry in entries)
        write_entries(self.path, tidy_entries([*others, moved]))

    # --- manifests

    def _read(self, digest: Digest) -> Manifest | None:
        """Read a blob that is a manifest or index, verified; None if missing or of another kind."""
        path = blob_path(self.path, digest)
        file = open_without_links(self.path, path)
        if file is None:
            return None
        with file:
            data = file.read(DOCUMENT_LIMIT + 1)
        media_type = media_type_of(data) if len(data) <= DOCUMENT_LIMIT else None
        if media_type is None:
            return None
        if Digest.of(data) != digest:
            raise VerificationError(
                "digest-mismatch", f"the content of {digest} does not match its digest", place=str(path)
            )
        return Manifest(media_type, data)

    def _put(self, manifest: Manifest) -> bool:
        path = blob_path(self.path, manifest.digest)
        if is_whole(self.path, path, manifest.digest, len(manifest.data), self.known):
            return False
        if media_type_of(manifest.data) != manifest.media_type:
            raise VerificationError(
                "media-type-mismatch", f"{manifest.digest} is not of the declared type {manifest.media_type}"
            )
        self._require_complete(manifest)
        make_folder(self._drafts)
        if os.path.lexists(path):
            set_aside(self.path, path, stays=True)
        replace_file(manifest.data, path, self._drafts)
        return True

    def _require_complete(self, manifest: Manifest) -> None:
        require_complete(manifest, self.url, lambda digest: blob_path(self.path, digest).is_file(), self._read)
