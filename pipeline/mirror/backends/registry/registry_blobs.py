"""Find, read, verify, mount and upload the blobs of one repository on a registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.digest import Digest, HashingWriter
from pipeline.errors import EnvironmentLacking, RelbuildError, VerificationError
from pipeline.mirror.backends.registry.blob_upload import BlobUpload, UploadForms, check_content
from pipeline.mirror.backends.registry.registry_responses import require_digest
from pipeline.mirror.backends.registry.repository_requests import RepositoryRequests
from pipeline.mirror.known_blobs import NO_STAMP, HashedBy, KnownInRun, still_corrupt
from pipeline.mirror.protocol import Arrival, ignore_progress
from pipeline.model.image import Descriptor
from pipeline.progress import Progress, task
from pipeline.store import Store
from pipeline.transfer import REFUSAL_CODES, Download, Network, fetch
from pipeline.transfer.url_stream import ResponseStream, SourceFailed

BLOB_LIMIT = 64 << 20
"""Bytes of a blob that is read into memory (`Repository.read_blob`)."""

BLOB_CHECKS = 3
"""Attempts to read a blob back when the connection breaks."""

_DAMAGED = (
    "`relbuild scrub MIRROR` sends it again from the store or, with --from, from a mirror, and tells what the registry "
    "keeps nevertheless and how that is removed"
)


class RegistryBlobs:
    """Blobs of the repository to which `requests` go. For use from several threads."""

    def __init__(
        self,
        requests: RepositoryRequests,
        progress: Progress,
        known: KnownInRun,
        *,
        read_back: bool,
        forms: UploadForms | None,
    ) -> None:
        """`read_back`: believe bytes that were read alone, not the registry's answers on them."""
        self._requests = requests
        self._progress = progress
        self._known = known
        self._read_back = read_back
        self._forms = forms or UploadForms()
        self._sent: set[Digest] = set()
        """Blobs that this process has put here or found here."""

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is here."""
        return self._size(digest) is not None

    def holds_whole(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is here and its bytes are known to match its digest."""
        return self._is_whole(descriptor, self._size(descriptor.digest))

    def _is_whole(self, descriptor: Descriptor, size: int | None) -> bool:
        if size not in {-1, descriptor.size}:
            return False
        if self._known.believes(descriptor.digest, NO_STAMP):
            return True
        if size == descriptor.size and not self._read_back and not self._known.doubts(descriptor.digest):
            return True
        try:
            self.check(descriptor)
        except VerificationError:
            return False
        return True

    def read(self, descriptor: Descriptor) -> bytes:
        """Read a small blob, verified."""
        if descriptor.size > BLOB_LIMIT:
            raise VerificationError(
                "blob-too-large",
                f"{descriptor.digest} has {descriptor.size} bytes, more than {BLOB_LIMIT}",
                place=self._requests.url,
            )
        response = self._requests.ask("GET", f"blobs/{descriptor.digest}", limit=descriptor.size)
        if response.status == 404:
            raise self._no_blob(descriptor.digest)
        self._requests.expect(response, {200}, f"return blob {descriptor.digest}")
        if Digest.of(response.body) != descriptor.digest:
            raise VerificationError(
                "registry-digest",
                f"the registry returned content that does not match {descriptor.digest}",
                place=self._requests.url,
            )
        return response.body

    def fetch(self, descriptor: Descriptor, store: Store) -> None:
        """Download a blob of any size into the store, verified; an interrupted download is resumed."""

        def source(
            url: str, network: Network, *, offset: int, validator: str
        ) -> AbstractContextManager[ResponseStream]:
            return self._requests.stream(url, offset=offset, validator=validator)

        label = f"{self._requests.name} {descriptor.digest.short}"
        wanted = Download((self._requests.blob_url(descriptor.digest),), descriptor.digest, descriptor.size, label)
        try:
            fetch(
                store,
                [wanted],
                progress=self._progress,
                network=self._requests.client.network,
                source=source,
                label=label,
            )
        except RelbuildError as error:
            if error.code == "download-missing":
                raise self._no_blob(descriptor.digest) from error
            if error.code == "download-mismatch":
                raise VerificationError("registry-digest", error.args[0], place=self._requests.url) from error
            if error.code == "network-unreachable" or error.code in REFUSAL_CODES:
                raise EnvironmentLacking("registry-unreachable", error.args[0], place=self._requests.url) from error
            raise

    def check(self, descriptor: Descriptor, advance: Callable[[int], None] = ignore_progress) -> None:
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
                    raise EnvironmentLacking("registry-unreachable", what, place=self._requests.url) from failure
            else:
                self._known.note(descriptor.digest, NO_STAMP, HashedBy.PUBLISHER)
                return

    def _read_through(self, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
        seen, whole = self._hash(descriptor.digest, descriptor.size, advance)
        if whole and (seen.digest, seen.size) == (descriptor.digest, descriptor.size):
            return
        size = seen.size if whole else self._size(descriptor.digest)
        if not whole and size is not None and size > descriptor.size:  # is it the manifest that is wrong?
            seen, _ = self._hash(descriptor.digest, size, advance)
        if seen.digest == descriptor.digest:
            self._known.note(descriptor.digest, NO_STAMP, HashedBy.PUBLISHER)
            raise VerificationError(
                "blob-size",
                f"a manifest gives blob {descriptor.digest} {descriptor.size} bytes; it has {seen.size}, and is intact",
                place=self._requests.url,
                hint="nobody pulls an image with that manifest: publish it again, or remove the tags that lead to it",
            )
        self._known.note_damage(descriptor.digest)
        what = f"the registry stored other content for {descriptor.digest} than was uploaded"
        raise VerificationError("blob-damaged", what, place=self._requests.url, hint=_DAMAGED)

    def _hash(self, digest: Digest, size: int, advance: Callable[[int], None]) -> tuple[HashingWriter, bool]:
        """Hash a blob's first bytes, at most `size`; return also whether there were no more."""
        seen = HashingWriter()
        with self._requests.stream(self._requests.blob_url(digest)) as stream:
            for piece in stream.pieces:
                if seen.size + len(piece) > size:
                    return seen, False
                seen.write(piece)
                advance(len(piece))
        return seen, True

    def put(
        self, descriptor: Descriptor, content: bytes | Path, *, elsewhere: Sequence[str] = (), new: bool = False
    ) -> Arrival:
        """Make sure that a blob is here: found, else mounted, else uploaded.

        It is mounted from one of the repositories `elsewhere`.
        """
        check_content(content, descriptor)
        self._requests.allow_push()
        if descriptor.digest in self._sent and not self._read_back:
            return Arrival.PRESENT
        arrival = self._bring(descriptor, content, elsewhere, new=new)
        self._sent.add(descriptor.digest)
        return arrival

    def _bring(self, descriptor: Descriptor, content: bytes | Path, elsewhere: Sequence[str], *, new: bool) -> Arrival:
        size = None if new else self._size(descriptor.digest)
        present = size is not None
        if self._is_whole(descriptor, size):
            return Arrival.PRESENT
        upload = BlobUpload(self._requests.client, self._requests.full, descriptor, content, self._forms)
        if not present and upload.mount(
            [self._requests.address.full(name) for name in elsewhere if name != self._requests.name]
        ):
            size = descriptor.size if upload.confirmed else self._size(descriptor.digest)
            if self._is_whole(descriptor, size):
                return Arrival.MOUNTED
            present = True  # The mounted blob is corrupt: upload it as if it had been here.
            upload = BlobUpload(self._requests.client, self._requests.full, descriptor, content, self._forms)
        label = f"{self._requests.name} {descriptor.digest.short}"
        with task(self._progress, "publish", label, total=descriptor.size, unit="bytes") as running:
            confirmed = upload.send(running)
        doubted = present or not confirmed or self._known.doubts(descriptor.digest)
        if doubted and not self.holds_whole(descriptor):
            raise still_corrupt(f"blob {descriptor.digest}", self._requests.url)
        return Arrival.UPLOADED

    def _size(self, digest: Digest) -> int | None:
        """Return a blob's size, -1 if the registry does not send it, None if the blob is missing."""
        response = self._requests.ask("HEAD", f"blobs/{digest}")
        if response.status == 404:
            return None
        self._requests.expect(response, {200}, f"check for blob {digest}")
        require_digest(response, digest, self._requests.url)
        size = response.header("content-length")
        return int(size) if size.isascii() and size.isdecimal() and len(size) < 19 else -1

    def _no_blob(self, digest: Digest) -> VerificationError:
        return VerificationError(
            "blob-missing",
            f"the registry lacks blob {digest}",
            place=self._requests.url,
            hint="the image there is incomplete: publish or copy it again",
        )
