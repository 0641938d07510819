"""`Repository` implementation for one repository on a registry, over its HTTP API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.backends.registry.blob_upload import UploadForms
from pipeline.mirror.backends.registry.name_pages import NAME_PAGE_LIMIT, listed_names
from pipeline.mirror.backends.registry.referrers_list import LISTING_PAUSE_LEAST, LISTING_PAUSE_MOST, ReferrersList
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.backends.registry.registry_blobs import RegistryBlobs
from pipeline.mirror.backends.registry.registry_responses import (
    MANIFEST_TYPES,
    keeps_tags,
    promised_digest,
    require_digest,
    response_manifest,
    tag_kept,
)
from pipeline.mirror.backends.registry.removal import Removal
from pipeline.mirror.backends.registry.repository_requests import RepositoryRequests
from pipeline.mirror.known_blobs import (
    KnownInRun,
    still_corrupt,
)
from pipeline.mirror.protocol import (
    TAG,
    Arrival,
    Repository,
    TagConflict,
    ignore_progress,
    is_auxiliary,
)
from pipeline.mirror.references import manifest_subject
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.oci.image_manifest import DOCUMENT_LIMIT
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.transfer import (
    RegistryClient,
    RegistryResponse,
)

if TYPE_CHECKING:
    from pipeline.mirror.gate import Cleared


class RegistryRepository(Repository):
    """A repository on a registry: see `Repository`. For use from several threads."""

    def __init__(
        self,
        address: RegistryRoot,
        name: str,
        client: RegistryClient,
        progress: Progress,
        known: KnownInRun,
        *,
        read_back: bool = False,
        forms: UploadForms | None = None,
    ) -> None:
        """`read_back`: believe bytes that were read alone, not the registry's answers on them."""
        self._read_back = read_back
        self._tagged: set[Digest] = set()
        """Manifests to which this process found a tag to point: a registry that names one has it."""
        requests = self._requests = RepositoryRequests(client, address, name)
        self._blobs = RegistryBlobs(requests, progress, known, read_back=read_back, forms=forms)
        self._listing = ReferrersList(self, requests, self._put)
        self._removal = Removal(self, requests, self._put)
        self._moved = 0.0
        """Time at which a tag was moved last, on the monotonic clock."""
        self._moving = 0.0
        """Longest time in seconds that moving a tag took: others may need as long."""

    @property
    def name(self) -> str:
        """The name below the mirror's namespace."""
        return self._requests.name

    @property
    def url(self) -> str:
        """The address, as a person writes it."""
        return self._requests.url

    @property
    def identity(self) -> str:
        """The name by which clients pull: `HOST/NAMESPACE/NAME`."""
        return f"{self._requests.address.host}/{self._requests.full}"

    # --- reading ---------------------------------------------------------------------------------

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest or under a tag, verified; None if missing."""
        response = self._requests.ask(
            "GET", f"manifests/{_reference(reference)}", accept=MANIFEST_TYPES, limit=DOCUMENT_LIMIT
        )
        if response.status == 404:
            return None
        self._requests.expect(response, {200}, f"return manifest {reference}")
        return response_manifest(
            response, reference if isinstance(reference, Digest) else None, f"{self.url}: {reference}"
        )

    def resolve(self, tag: str) -> Digest | None:
        """Resolve a tag to the digest that it points to now; None if it does not exist.

        If the registry does not send the digest, the manifest is requested and its digest computed.
        """
        found = self._head(tag)
        if found is not None:
            self._tagged.add(found)
        return found

    def tags(self) -> tuple[str, ...]:
        """Return all tags, sorted, auxiliary ones too."""
        asked = self._requests
        found = set(listed_names(asked.client, asked.path("tags/list"), asked.reading, "tags", self.url))
        strange = next((tag for tag in found if not TAG.fullmatch(tag)), None)
        if strange is not None:
            raise VerificationError(
                "tag-malformed", f"the registry lists an invalid tag {strange[:200]!r}", place=self.url
            )
        return tuple(sorted(found))

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is here."""
        return self._blobs.has(digest)

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        return self._blobs.holds_whole(descriptor)

    def pruned_by(self, reference: Digest | str) -> str:
        """Return "": a pruning of a registry cannot be undone."""
        return ""

    def misplaced_tag(self, tag: str) -> None:
        """Return None: what a registry keeps in the place of a tag is not seen."""

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Read a small blob, verified."""
        return self._blobs.read(descriptor)

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Download a blob of any size into the store, verified; an interrupted download is resumed."""
        self._blobs.fetch(descriptor, store)

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Download a blob and verify digest and size, keeping nothing (`RegistryBlobs.check`)."""
        self._blobs.check(descriptor, advance)

    def file_path(self, digest: Digest) -> str:
        """Return an empty path: a registry serves blobs by its API only."""
        return ""

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]:
        """List the referrers of `subject`, sorted by digest."""
        return self._listing.of(subject)

    # --- writing ---------------------------------------------------------------------------------

    def put_blob(
        self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = (), new: bool = False
    ) -> Arrival:
        """Make sure that a blob is here: found, else mounted, else uploaded (`RegistryBlobs.put`)."""
        return self._blobs.put(descriptor, content, elsewhere=elsewhere, new=new)

    def put_manifest(self, manifest: Manifest, *, new: bool = False) -> bool:
        """Put a manifest or index by its digest; return False if it was there intact."""
        self._requests.allow_push()
        known = manifest.digest in self._tagged and not self._read_back
        present = not new and (known or self.has_manifest(manifest.digest))
        if present and (not self._read_back or self._returns(manifest)):
            return False
        self._put(str(manifest.digest), manifest)
        if present and not self._returns(manifest):
            raise still_corrupt(f"manifest {manifest.digest}", self.url)
        return True

    def _returns(self, manifest: Manifest) -> bool:
        """Return whether the registry returns the manifest unchanged."""
        try:
            return self.manifest(manifest.digest) == manifest
        except VerificationError:
            return False

    def attach(self, manifest: Manifest) -> bool:
        """Put a manifest that has a `subject`, and make sure that `referrers` lists it."""
        self._requests.allow_push()
        return self._listing.attach(manifest)

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one `subject` and were not listed, and list them."""
        self._requests.allow_push()
        self._listing.attach_all(manifests)

    def put_auxiliary(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        """Put a manifest and point an auxiliary tag at it; the last writer wins. Raises TagConflict."""
        if not is_auxiliary(tag):
            raise ValueError(f"{tag} is not an auxiliary tag")
        self._move(tag, manifest, expected)

    def point(self, tag: str, cleared: Cleared, expected: Digest | None) -> None:
        """Point a tag at the cleared manifest.

        Registries cannot compare and swap: the last writer wins, and the other finds it when it resolves the tag after
        `await_writers`.
        """
        if is_auxiliary(tag):
            raise ValueError(f"{tag} is an auxiliary tag")
        cleared.refuse_other(tag)
        self._move(tag, cleared.manifest, expected)

    def moving(self) -> AbstractContextManager[None]:
        """Hold nothing: registries have no locks."""
        return nullcontext()

    def await_writers(self) -> bool:
        """Pause, and return True.

        Another writer who resolved a tag before our last move writes it within a few round trips, so at least twice the
        time that moving took here must have gone by since then.
        """
        pause = min(LISTING_PAUSE_MOST, max(LISTING_PAUSE_LEAST, 2 * self._moving))
        until = self._moved + pause * (1 + secrets.randbelow(1000) / 1000)
        time.sleep(max(0.0, until - time.monotonic()))
        return True

    # --- removing --------------------------------------------------------------------------------

    def remove_tag(self, tag: str, expected: Digest) -> None:
        """Remove a tag, not its manifest, if the registry allows deletions (see `Removal.tag`)."""
        self._tagged.discard(expected)
        self._removal.tag(tag, expected)

    def remove_manifest(self, digest: Digest) -> None:
        """Remove a manifest or index, all tags that point to it, and its entry among referrers."""
        held = self.manifest(digest)
        if held is None:
            return
        self._tagged.discard(digest)
        self._removal.manifest(digest)
        subject = manifest_subject(held)
        if subject is not None:
            self._listing.drop(subject, digest)

    def remove_referrer(self, digest: Digest) -> None:
        """Remove a manifest's entry among the referrers of its subject, then the manifest."""
        held = self.manifest(digest)
        subject = manifest_subject(held) if held is not None else None
        if subject is not None:
            self._listing.drop(subject, digest)
        self._tagged.discard(digest)
        self._removal.manifest(digest)

    # --- requests --------------------------------------------------------------------------------

    def _put(self, reference: str, manifest: Manifest) -> RegistryResponse:
        """Put a manifest under a digest or tag; the caller has checked that the tag may be moved."""
        response = self._requests.client.ask(
            "PUT",
            self._requests.path(f"manifests/{reference}"),
            scopes=self._requests.push,
            limit=NAME_PAGE_LIMIT,
            headers={"Content-Type": manifest.media_type},
            body=manifest.data,
        )
        if keeps_tags(response):
            raise tag_kept(response, reference, self.url)
        self._requests.expect(response, {200, 201, 202}, f"accept manifest {manifest.digest.short} as {reference}")
        require_digest(response, manifest.digest, self.url)
        if promised_digest(response) is None and not self.has_manifest(manifest.digest):
            raise VerificationError(
                "manifest-not-kept", f"manifest {manifest.digest} is missing after its upload", place=self.url
            )
        return response

    def has_manifest(self, digest: Digest) -> bool:
        """Return whether a manifest or index is here."""
        return self._head(digest) is not None

    def _head(self, reference: Digest | str) -> Digest | None:
        response = self._requests.ask("HEAD", f"manifests/{_reference(reference)}", accept=MANIFEST_TYPES)
        if response.status == 404:
            return None
        found = promised_digest(response) if response.status == 200 else None
        if found is None:
            given = self.manifest(reference)
            return given.digest if given else None
        if isinstance(reference, Digest) and found != reference:
            raise VerificationError("registry-digest", f"the registry returned {found} for {reference}", place=self.url)
        return found

    def _move(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        self._requests.allow_push()
        began = time.monotonic()
        found = self.resolve(tag)
        if found != expected:
            raise TagConflict(tag, found)
        if found == manifest.digest:
            return
        self._put(tag, manifest)
        self._moved = time.monotonic()
        self._moving = max(self._moving, self._moved - began)


def _reference(reference: Digest | str) -> str:
    """Return a digest or tag as text for a URL. Raises UsageError `tag-malformed`."""
    if isinstance(reference, str) and not TAG.fullmatch(reference):
        raise UsageError(
            "tag-malformed", f"invalid tag: '{reference[:200]}'", hint="use up to 128 letters, digits, . _ and -"
        )
    return str(reference)
