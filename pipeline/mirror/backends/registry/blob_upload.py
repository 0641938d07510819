"""Push one blob to a registry: mount it from another repository, or upload it resumably.

distribution-spec 1.1, "Pushing blobs".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.mirror.backends.registry.registry_responses import (
    error_code,
    promised_digest,
    registry_refused,
    require_digest,
    response_words,
)
from pipeline.model.image import Descriptor
from pipeline.progress import Task
from pipeline.transfer import (
    FileRange,
    RegistryClient,
    RegistryResponse,
    RetryBudget,
    Scope,
    TransientFailure,
)

BARE_UPLOAD_LIMIT = 64 << 10
"""Bytes up to which a blob is sent with the request that begins its upload: a registry that does not take it so reads
and drops them."""

SINGLE_UPLOAD_LIMIT = 64 << 20
"""Bytes up to which a blob is sent in one request: so much is sent again when the connection breaks."""

UPLOAD_CHUNK = 64 << 20
"""Bytes per request of a larger blob: below the usual limits of proxies in front of registries (100 MB is common),
and large enough that the time for the requests' round trips is negligible."""

UPLOAD_SESSIONS = 8
"""Upload sessions of one blob: a new one is begun where the registry has dropped the one before. docker-registry 2.8
does so whenever a connection breaks within a request: it takes the bytes that have arrived for an error ("upload
resumed at wrong offset"). Others say how many bytes they have, and are sent the rest."""

MOUNT_ATTEMPTS = 3
"""Repositories from which a mount is tried before a blob is uploaded."""

UPLOAD_RESPONSE_LIMIT = 1 << 20
"""Bytes of a response to an upload request, which is short."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class _Forgotten(Exception):
    """The registry does not know this upload session any more. `response`: the one that says so."""

    def __init__(self, response: RegistryResponse) -> None:
        self.response = response


class UploadForms:
    """Forms of upload that a registry was found to take.

    `bare`: a blob in the POST alone (None: not tried yet).
    """

    def __init__(self) -> None:
        self.bare: bool | None = None


class BlobUpload:
    """Push of one blob to the repository `name` (with its namespace)."""

    def __init__(
        self,
        client: RegistryClient,
        name: str,
        descriptor: Descriptor,
        content: bytes | Path,
        forms: UploadForms | None = None,
    ) -> None:
        self._client = client
        self._path = f"/v2/{name}/blobs"
        self._scopes = (Scope.repository(name, "pull", "push"),)
        self._descriptor = descriptor
        self._content = content
        self._forms = forms or UploadForms()
        self._place = f"{client.host}/{name}"
        self._location = ""
        self._offset = 0
        self._reported = 0
        self.confirmed = False
        """That the registry's answer named the blob's digest."""
        self._piece = UPLOAD_CHUNK

    def mount(self, sources: Sequence[str]) -> bool:
        """Mount the blob from the first of `sources` that has it; return whether one had it.

        `sources`: full names of repositories, of which MOUNT_ATTEMPTS are tried. If the registry begins an upload
        session instead, `send` uses it.
        """
        for source in sources[:MOUNT_ATTEMPTS]:
            query = f"?mount={self._descriptor.digest}&from={quote(source, safe='')}"
            scopes = (*self._scopes, Scope.repository(source, "pull"))
            try:
                response = self._client.ask(
                    "POST", f"{self._path}/uploads/{query}", scopes=scopes, limit=UPLOAD_RESPONSE_LIMIT
                )
            except EnvironmentLacking as error:
                if error.code == "registry-denied":  # for the source; if for the target too, the upload reports it
                    continue
                raise
            if response.status == 201:
                require_digest(response, self._descriptor.digest, self._place)
                self.confirmed = promised_digest(response) is not None
                self._cancel()
                return True
            if response.status == 202 and response.location():
                self._cancel()
                self._begun(response)
        return False

    def send(self, task: Task) -> bool:
        """Upload the blob; return whether the registry's answer names its digest.

        Raises VerificationError `blob-mismatch` if the bytes are not the descriptor's, and as
        `RegistryClient.ask`.
        """
        retries, sessions = self._client.retry_budget(), 0
        while True:
            sessions += 1
            try:
                if self._location or not self._begin():
                    self._transfer(task, retries)
            except _Forgotten as gone:
                self._location, self._offset = "", 0
                if sessions == UPLOAD_SESSIONS:
                    raise registry_refused(gone.response, "keep an upload until it is complete", self._place) from None
            else:
                self._report(task)
                return self.confirmed

    # --- the session -----------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Begin an upload session; return whether the whole blob arrived with the request instead."""
        if self._forms.bare is not False and 0 < self._descriptor.size <= BARE_UPLOAD_LIMIT:
            response = self._client.ask(
                "POST",
                f"{self._path}/uploads/?digest={quote(str(self._descriptor.digest), safe='')}",
                scopes=self._scopes,
                limit=UPLOAD_RESPONSE_LIMIT,
                headers={"Content-Type": "application/octet-stream"},
                body=self._body(0, self._descriptor.size),
            )
            self._forms.bare = response.status == 201
            if response.status == 201:
                self._complete(response)
                return True
            if response.status == 202 and response.location():  # it does not take blobs so, and said so as specified
                self._begun(response)
                return False
        response = self._client.ask("POST", f"{self._path}/uploads/", scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
        if response.status != 202 or not response.location():
            raise self._refused(response)
        self._begun(response)
        return False

    def _complete(self, response: RegistryResponse) -> None:
        require_digest(response, self._descriptor.digest, self._place)
        self.confirmed = promised_digest(response) is not None
        self._offset = self._descriptor.size

    def _begun(self, response: RegistryResponse) -> None:
        self._location, self._offset = response.location(), 0
        least = response.header("oci-chunk-min-length")
        if least.isascii() and least.isdecimal() and len(least) < 12:
            self._piece = max(UPLOAD_CHUNK, int(least))

    def _cancel(self) -> None:
        """Cancel an upload session that is not needed.

        Where that fails, the registry drops the session after a time.
        """
        if self._location:
            with contextlib.suppress(EnvironmentLacking):
                self._client.ask("DELETE", self._location, scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
            self._location = ""

    def _transfer(self, task: Task, retries: RetryBudget) -> None:
        size = self._descriptor.size
        while True:
            try:
                if size - self._offset <= SINGLE_UPLOAD_LIMIT:
                    self._finish()
                    return
                self._patch()
                self._report(task)
                retries.renew()
            except TransientFailure as failure:
                retries.spend(failure)
                if self._arrived():
                    self._offset = size
                    return
                before = self._offset
                self._query_offset()
                if self._offset > before:
                    retries.renew()

    def _patch(self) -> None:
        end = min(self._descriptor.size, self._offset + self._piece)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{self._offset}-{end - 1}"}
        response = self._client.ask(
            "PATCH",
            self._location,
            scopes=self._scopes,
            limit=UPLOAD_RESPONSE_LIMIT,
            headers=headers,
            body=self._body(self._offset, end),
            once=True,
        )
        if response.status in {404, 416}:
            raise _Forgotten(response)
        if response.status not in {200, 201, 202, 204}:
            raise self._refused(response)
        got = _received(response, end)
        if not self._offset < got <= end:
            raise TransientFailure(f"it has {got} bytes, but {end} were sent")
        self._location, self._offset = response.location() or self._location, got

    def _finish(self) -> None:
        """Send the remaining bytes (all of a small blob) and complete the upload."""
        size = self._descriptor.size
        headers = {"Content-Type": "application/octet-stream"}
        if 0 < self._offset < size:
            headers["Content-Range"] = f"{self._offset}-{size - 1}"
        sign = "&" if "?" in self._location else "?"
        response = self._client.ask(
            "PUT",
            f"{self._location}{sign}digest={quote(str(self._descriptor.digest), safe='')}",
            scopes=self._scopes,
            limit=UPLOAD_RESPONSE_LIMIT,
            headers=headers,
            body=self._body(self._offset, size),
            once=True,
        )
        if response.status == 404 or (response.status == 416 and self._offset < size):
            raise _Forgotten(response)
        if response.status not in {200, 201, 204}:
            raise self._refused(response)
        self._complete(response)

    def _report(self, task: Task) -> None:
        """Report progress; bytes that are sent twice count once."""
        task.advance(max(0, self._offset - self._reported))
        self._reported = max(self._reported, self._offset)

    def _query_offset(self) -> None:
        """Ask how many bytes of the blob have arrived, to resume the upload there.

        Raises _Forgotten if the registry does not tell: then all is sent again.
        """
        response = self._client.ask("GET", self._location, scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
        if response.status not in {200, 202, 204}:
            raise _Forgotten(response)
        got = _received(response, 0)
        if got == 1:  # registries response `0-0` for no bytes, too
            got = 0
        if got > self._descriptor.size:
            raise _Forgotten(response)
        self._location, self._offset = response.location() or self._location, got

    def _arrived(self) -> bool:
        """Return whether the whole blob is there: perhaps only the last response was lost."""
        target = f"{self._path}/{self._descriptor.digest}"
        return self._client.ask("HEAD", target, scopes=self._scopes, limit=0).status == 200

    def _body(self, start: int, end: int) -> bytes | FileRange:
        if isinstance(self._content, bytes):
            return self._content[start:end]
        return FileRange(self._content, start, end - start)

    def _refused(self, response: RegistryResponse) -> EnvironmentLacking | VerificationError:
        if response.status in {401, 403}:
            return self._client.denied(self._scopes, response_words(response))
        if error_code(response) in {"DIGEST_INVALID", "SIZE_INVALID"}:
            return VerificationError(
                "blob-mismatch",
                f"blob {self._descriptor.digest} was corrupted during the upload: {response_words(response)}",
                place=str(self._content) if isinstance(self._content, Path) else self._place,
                hint="the file was damaged or changed, or a proxy alters uploads: run `relbuild store fsck` and retry",
            )
        return registry_refused(response, f"accept blob {self._descriptor.digest}", self._place)


def _received(response: RegistryResponse, otherwise: int) -> int:
    """Return the number of arrived bytes, from the Range header; `otherwise` without one."""
    match = _RANGE.fullmatch(response.header("range").strip())
    return int(match[1]) + 1 if match else otherwise


def check_content(content: bytes | Path, descriptor: Descriptor) -> None:
    """Check the size of `content`, and the digest if it is bytes, before it is uploaded.

    A file is not read for this: the registry computes its digest. Raises VerificationError `blob-mismatch`.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    same = size == descriptor.size and (isinstance(content, Path) or Digest.of(content) == descriptor.digest)
    if not same:
        raise VerificationError("blob-mismatch", f"the content to upload does not match {descriptor.digest}")
