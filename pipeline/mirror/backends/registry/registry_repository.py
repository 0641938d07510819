"""`Repository` implementation for one repository on a registry, over its HTTP API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import Digest, HashingWriter
from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError, VerificationError
from pipeline.mirror.backends.registry.blob_upload import BlobUpload, UploadForms, check_content
from pipeline.mirror.backends.registry.name_pages import NAME_PAGE_LIMIT, listed_names
from pipeline.mirror.backends.registry.referrers_list import LISTING_PAUSE_LEAST, LISTING_PAUSE_MOST, ReferrersList
from pipeline.mirror.backends.registry.registry_address_form import RegistryRoot
from pipeline.mirror.backends.registry.registry_responses import (
    MANIFEST_TYPES,
    keeps_tags,
    promised_digest,
    registry_refused,
    require_digest,
    response_manifest,
    response_words,
    tag_kept,
)
from pipeline.mirror.backends.registry.removal import Removal
from pipeline.mirror.known_blobs import (
    NO_STAMP,
    HashedBy,
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
from pipeline.progress import Progress, task
from pipeline.store import Store
from pipeline.transfer import (
    REFUSAL_CODES,
    Download,
    Network,
    RegistryClient,
    RegistryResponse,
    Scope,
    fetch,
)
from pipeline.transfer.url_stream import ResponseStream, SourceFailed

if TYPE_CHECKING:
    from pipeline.mirror.gate import Cleared

BLOB_LIMIT = 64 << 20
"""Bytes of a blob that is read into memory (`Repository.read_blob`)."""

BLOB_CHECKS = 3
"""Attempts to read a blob back when the connection breaks."""


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
        self._address = address
        self._known = known
        self._read_back = read_back
        self._forms = forms or UploadForms()
        self._sent: set[Digest] = set()
        """Blobs that this process has put here or found here."""
        self._tagged: set[Digest] = set()
        """Manifests to which this process found a tag to point: a registry that names one has it."""
        self._name = name
        self._full = address.full(name)
        self._client = client
        self._progress = progress
        self._reading = (Scope.repository(self._full, "pull"),)
        self._push = (Scope.repository(self._full, "pull", "push"),)
        self._delete = (Scope.repository(self._full, "delete", "pull", "push"),)
        self._listing = ReferrersList(self, self._put)
        self._removal = Removal(self, self._put)
        self._moved = 0.0
        """Time at which a tag was moved last, on the monotonic clock."""
        self._moving = 0.0
        """Longest time in seconds that moving a tag took: others may need as long."""

    @property
    def name(self) -> str:
        """The name below the mirror's namespace."""
        return self._name

    @property
    def url(self) -> str:
        """The address, as a person writes it."""
        return f"{self._address}/{self._name}"

    @property
    def identity(self) -> str:
        """The name by which clients pull: `HOST/NAMESPACE/NAME`."""
        return f"{self._address.host}/{self._full}"

    # --- reading ---------------------------------------------------------------------------------

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest or index with a digest or under a tag, verified; None if missing."""
        response = self.ask("GET", f"manifests/{_reference(reference)}", accept=MANIFEST_TYPES, limit=DOCUMENT_LIMIT)
        if response.status == 404:
            return None
        self.expect(response, {200}, f"return manifest {reference}")
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
        found = set(listed_names(self._client, f"/v2/{self._full}/tags/list", self._reading, "tags", self.url))
        strange = next((tag for tag in found if not TAG.fullmatch(tag)), None)
        if strange is not None:
            raise VerificationError(
                "tag-malformed", f"the registry lists an invalid tag {strange[:200]!r}", place=self.url
            )
        return tuple(sorted(found))

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is here."""
        return self._blob_size(digest) is not None

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        return self._is_whole(descriptor, self._blob_size(descriptor.digest))

    def _is_whole(self, descriptor: Descriptor, size: int | None) -> bool:
        if size not in {-1, descriptor.size}:
            return False
        if self._known.believes(descriptor.digest, NO_STAMP) or (size == descriptor.size and not self._read_back):
            return True
        try:
            self.check_blob(descriptor)
        except VerificationError:
            return False
        return True

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Read a small blob, verified."""
        if descriptor.size > BLOB_LIMIT:
            raise VerificationError(
                "blob-too-large",
                f"{descriptor.digest} has {descriptor.size} bytes, more than {BLOB_LIMIT}",
                place=self.url,
            )
        response = self.ask("GET", f"blobs/{descriptor.digest}", limit=descriptor.size)
        if response.status == 404:
            raise self._no_blob(descriptor.digest)
        self.expect(response, {200}, f"return blob {descriptor.digest}")
        if Digest.of(response.body) != descriptor.digest:
            raise VerificationError(
                "registry-digest",
                f"the registry returned content that does not match {descriptor.digest}",
                place=self.url,
            )
        return response.body

    def fetch_blob(self, descriptor: Descriptor, store: Store) -> None:
        """Download a blob of any size into the store, verified; an interrupted download is resumed."""
        url = f"{self._address.base}/v2/{self._full}/blobs/{descriptor.digest}"

        def source(
            url: str, network: Network, *, offset: int, validator: str
        ) -> AbstractContextManager[ResponseStream]:
            return self._client.stream(url, scopes=self._reading, offset=offset, validator=validator)

        label = f"{self._name} {descriptor.digest.short}"
        wanted = Download((url,), descriptor.digest, descriptor.size, label)
        try:
            fetch(store, [wanted], progress=self._progress, network=self._client.network, source=source, label=label)
        except RelbuildError as error:
            if error.code == "download-missing":
                raise self._no_blob(descriptor.digest) from error
            if error.code == "download-mismatch":
                raise VerificationError("registry-digest", error.args[0], place=self.url) from error
            if error.code == "network-unreachable" or error.code in REFUSAL_CODES:
                raise EnvironmentLacking("registry-unreachable", error.args[0], place=self.url) from error
            raise

    def check_blob(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
        """Download a blob of any size and verify digest and size, keeping nothing.

        An interrupted download is begun anew. Raises VerificationError `blob-missing`, `blob-damaged`.
        """
        for left in reversed(range(BLOB_CHECKS)):
            try:
                self._read_through(descriptor, advance)
            except SourceFailed as failure:
                if failure.missing:
                    raise self._no_blob(descriptor.digest) from failure
                if not failure.again or not left:
                    what = f"{descriptor.digest} cannot be read back: {failure}"
                    raise EnvironmentLacking("registry-unreachable", what, place=self.url) from failure
            else:
                self._known.note(descriptor.digest, NO_STAMP, HashedBy.PUBLISHER)
                return

    def _read_through(self, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
        seen = HashingWriter()
        url = f"{self._address.base}/v2/{self._full}/blobs/{descriptor.digest}"
        with self._client.stream(url, scopes=self._reading) as stream:
            for piece in stream.pieces:
                if seen.size + len(piece) > descriptor.size:
                    break
                seen.write(piece)
                advance(len(piece))
        if (seen.digest, seen.size) != (descriptor.digest, descriptor.size):
            what = f"the registry stored other content for {descriptor.digest} than was uploaded"
            raise VerificationError("blob-damaged", what, place=self.url)

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
        """Make sure that a blob is here: found, else mounted, else uploaded.

        It is mounted from one of the repositories `elsewhere`.
        """
        check_content(content, descriptor)
        self._write()
        if descriptor.digest in self._sent and not self._read_back:
            return Arrival.PRESENT
        arrival = self._bring_blob(descriptor, content, elsewhere, new=new)
        self._sent.add(descriptor.digest)
        return arrival

    def _bring_blob(
        self, descriptor: Descriptor, content: bytes | Path, elsewhere: Sequence[str], *, new: bool
    ) -> Arrival:
        size = None if new else self._blob_size(descriptor.digest)
        present = size is not None
        if self._is_whole(descriptor, size):
            return Arrival.PRESENT
        upload = BlobUpload(self._client, self._full, descriptor, content, self._forms)
        if not present and upload.mount([self._address.full(name) for name in elsewhere if name != self._name]):
            size = descriptor.size if upload.confirmed else self._blob_size(descriptor.digest)
            if self._is_whole(descriptor, size):
                return Arrival.MOUNTED
            present = True  # The mounted blob is corrupt: upload it as if it had been here.
            upload = BlobUpload(self._client, self._full, descriptor, content, self._forms)
        label = f"{self._name} {descriptor.digest.short}"
        with task(self._progress, "publish", label, total=descriptor.size, unit="bytes") as running:
            confirmed = upload.send(running)
        if (present or not confirmed) and not self.holds_whole(descriptor):
            raise still_corrupt(f"blob {descriptor.digest}", self.url)
        return Arrival.UPLOADED

    def put_manifest(self, manifest: Manifest, *, new: bool = False) -> bool:
        """Put a manifest or index by its digest; return False if it was there intact."""
        self._write()
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
        self._write()
        return self._listing.attach(manifest)

    def attach_all(self, manifests: Sequence[Manifest]) -> None:
        """Put manifests that have one `subject` and were not listed, and list them."""
        self._write()
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

    # --- requests, also for ReferrersList and Removal --------------------------------------------

    def ask(
        self,
        method: str,
        target: str,
        *,
        limit: int = NAME_PAGE_LIMIT,
        accept: Sequence[str] = (),
    ) -> RegistryResponse:
        """Send a GET, HEAD or DELETE to a path below `/v2/NAME/`, or to an absolute URL.

        `limit`: bytes of the response's body.
        """
        headers = {"Accept": ", ".join(accept)} if accept else {}
        scopes = {"GET": self._reading, "HEAD": self._reading, "DELETE": self._delete}[method]
        return self._client.ask(method, self._below(target), scopes=scopes, limit=limit, headers=headers)

    def _below(self, target: str) -> str:
        return target if "://" in target else f"/v2/{self._full}/{target}"

    def expect(self, response: RegistryResponse, statuses: set[int], what: str) -> None:
        """Raise EnvironmentLacking `registry-denied` or `registry-refused` for any other status.

        `what` completes "the registry refused to …".
        """
        if response.status in {401, 403}:
            raise self._client.denied(self._reading, f"it refused to {what}: {response_words(response)}")
        if response.status not in statuses:
            raise registry_refused(response, what, self.url)

    def _put(self, reference: str, manifest: Manifest) -> RegistryResponse:
        """Put a manifest under a digest or tag; the caller has checked that the tag may be moved."""
        response = self._client.ask(
            "PUT",
            self._below(f"manifests/{reference}"),
            scopes=self._push,
            limit=NAME_PAGE_LIMIT,
            headers={"Content-Type": manifest.media_type},
            body=manifest.data,
        )
        if keeps_tags(response):
            raise tag_kept(response, reference, self.url)
        self.expect(response, {200, 201, 202}, f"accept manifest {manifest.digest.short} as {reference}")
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
        response = self.ask("HEAD", f"manifests/{_reference(reference)}", accept=MANIFEST_TYPES)
        if response.status == 404:
            return None
        found = promised_digest(response) if response.status == 200 else None
        if found is None:
            given = self.manifest(reference)
            return given.digest if given else None
        if isinstance(reference, Digest) and found != reference:
            raise VerificationError("registry-digest", f"the registry returned {found} for {reference}", place=self.url)
        return found

    def _write(self) -> None:
        """From now on, request tokens that allow pull and push, also for reading.

        One token serves all requests, and some registries deny read-only clients a repository that does not exist yet.
        """
        self._reading = self._push

    def _move(self, tag: str, manifest: Manifest, expected: Digest | None) -> None:
        self._write()
        began = time.monotonic()
        found = self.resolve(tag)
        if found != expected:
            raise TagConflict(tag, found)
        if found == manifest.digest:
            return
        self._put(tag, manifest)
        self._moved = time.monotonic()
        self._moving = max(self._moving, self._moved - began)

    def _blob_size(self, digest: Digest) -> int | None:
        """Return a blob's size, -1 if the registry does not send it, None if the blob is missing."""
        response = self.ask("HEAD", f"blobs/{digest}")
        if response.status == 404:
            return None
        self.expect(response, {200}, f"check for blob {digest}")
        require_digest(response, digest, self.url)
        size = response.header("content-length")
        return int(size) if size.isascii() and size.isdecimal() and len(size) < 19 else -1

    def _no_blob(self, digest: Digest) -> VerificationError:
        return VerificationError(
            "blob-missing",
            f"the registry lacks blob {digest}",
            place=self.url,
            hint="the image there is incomplete: publish or copy it again",
        )


def _reference(reference: Digest | str) -> str:
    """Return a digest or tag as text for a URL. Raises UsageError `tag-malformed`."""
    if isinstance(reference, str) and not TAG.fullmatch(reference):
        raise UsageError(
            "tag-malformed", f"invalid tag: '{reference[:200]}'", hint="use up to 128 letters, digits, . _ and -"
        )
    return str(reference)
