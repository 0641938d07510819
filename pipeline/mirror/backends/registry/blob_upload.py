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

SINGLE_UPLOAD_LIMIT = 8 << 20
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
    """The registry does not know this upload session any more. `answer`: its response."""

    def __init__(self, answer: RegistryResponse) -> None:
        self.answer = answer


class BlobUpload:
    """Push of one blob to the repository `name` (with its namespace)."""

    def __init__(self, exchange: RegistryClient, name: str, descriptor: Descriptor, content: bytes | Path) -> None:
        self._exchange = exchange
        self._path = f"/v2/{name}/blobs"
        self._scopes = (Scope.repository(name, "pull", "push"),)
        self._descriptor = descriptor
        self._content = content
        self._place = f"{exchange.host}/{name}"
        self._location = ""
        self._offset = 0
        self._reported = 0
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
                answer = self._exchange.ask(
                    "POST", f"{self._path}/uploads/{query}", scopes=scopes, limit=UPLOAD_RESPONSE_LIMIT
                )
            except EnvironmentLacking as error:
                if error.code == "registry-denied":  # for the source; if for the target too, the upload reports it
                    continue
                raise
            if answer.status == 201:
                require_digest(answer, self._descriptor.digest, self._place)
                self._cancel()
                return True
            if answer.status == 202 and answer.location():
                self._cancel()
                self._begun(answer)
        return False

    def send(self, task: Task) -> None:
        """Upload the blob.

        Raises VerificationError `blob-mismatch` if the bytes are not the descriptor's, and as
        `RegistryClient.ask`.
        """
        retries = self._exchange.retry_budget()
        for left in reversed(range(UPLOAD_SESSIONS)):
            try:
                if not self._location:
                    self._begin()
                self._transfer(task, retries)
                return
            except _Forgotten as gone:
                self._location, self._offset = "", 0
                if not left:
                    raise registry_refused(gone.answer, "keep an upload until it is complete", self._place) from None

    # --- the session -----------------------------------------------------------------------------

    def _begin(self) -> None:
        answer = self._exchange.ask("POST", f"{self._path}/uploads/", scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
        if answer.status != 202 or not answer.location():
            raise self._refused(answer)
        self._begun(answer)

    def _begun(self, answer: RegistryResponse) -> None:
        self._location, self._offset = answer.location(), 0
        least = answer.header("oci-chunk-min-length")
        if least.isascii() and least.isdecimal() and len(least) < 12:
            self._piece = max(UPLOAD_CHUNK, int(least))

    def _cancel(self) -> None:
        """Cancel an upload session that is not needed.

        Where that fails, the registry drops the session after a time.
        """
        if self._location:
            with contextlib.suppress(EnvironmentLacking):
                self._exchange.ask("DELETE", self._location, scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
            self._location = ""

    def _transfer(self, task: Task, retries: RetryBudget) -> None:
        size = self._descriptor.size
        while True:
            try:
                if size <= SINGLE_UPLOAD_LIMIT or self._offset == size:
                    self._finish()
                    self._report(task)
                    return
                self._patch()
                self._report(task)
                retries.renew()
            except TransientFailure as failure:
                retries.spend(failure)
                if self._arrived():
                    self._offset = size
                    self._report(task)
                    return
                before = self._offset
                self._query_offset()
                if self._offset > before:
                    retries.renew()

    def _patch(self) -> None:
        end = min(self._descriptor.size, self._offset + self._piece)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{self._offset}-{end - 1}"}
        answer = self._exchange.ask(
            "PATCH",
            self._location,
            scopes=self._scopes,
            limit=UPLOAD_RESPONSE_LIMIT,
            headers=headers,
            body=self._body(self._offset, end),
            once=True,
        )
        if answer.status in {404, 416}:
            raise _Forgotten(answer)
        if answer.status not in {200, 201, 202, 204}:
            raise self._refused(answer)
        got = _received(answer, end)
        if not self._offset < got <= end:
            raise TransientFailure(f"it has {got} bytes, but {end} were sent")
        self._location, self._offset = answer.location() or self._location, got

    def _finish(self) -> None:
        """Send the remaining bytes (all of a small blob) and complete the upload."""
        size = self._descriptor.size
        headers = {"Content-Type": "application/octet-stream"}
        if 0 < self._offset < size:
            headers["Content-Range"] = f"{self._offset}-{size - 1}"
        sign = "&" if "?" in self._location else "?"
        answer = self._exchange.ask(
            "PUT",
            f"{self._location}{sign}digest={quote(str(self._descriptor.digest), safe='')}",
            scopes=self._scopes,
            limit=UPLOAD_RESPONSE_LIMIT,
            headers=headers,
            body=self._body(self._offset, size),
            once=True,
        )
        if answer.status == 404 or (answer.status == 416 and self._offset < size):
            raise _Forgotten(answer)
        if answer.status not in {200, 201, 204}:
            raise self._refused(answer)
        require_digest(answer, self._descriptor.digest, self._place)
        self._offset = size

    def _report(self, task: Task) -> None:
        """Report progress; bytes that are sent twice count once."""
        task.advance(max(0, self._offset - self._reported))
        self._reported = max(self._reported, self._offset)

    def _query_offset(self) -> None:
        """Ask how many bytes of the blob have arrived, to resume the upload there.

        Raises _Forgotten if the registry does not tell: then all is sent again.
        """
        answer = self._exchange.ask("GET", self._location, scopes=self._scopes, limit=UPLOAD_RESPONSE_LIMIT)
        if answer.status not in {200, 202, 204}:
            raise _Forgotten(answer)
        got = _received(answer, 0)
        if got == 1:  # registries answer `0-0` for no bytes, too
            got = 0
        if got > self._descriptor.size:
            raise _Forgotten(answer)
        self._location, self._offset = answer.location() or self._location, got

    def _arrived(self) -> bool:
        """Return whether the whole blob is there: perhaps only the last response was lost."""
        target = f"{self._path}/{self._descriptor.digest}"
        return self._exchange.ask("HEAD", target, scopes=self._scopes, limit=0).status == 200

    def _body(self, start: int, end: int) -> bytes | FileRange:
        if isinstance(self._content, bytes):
            return self._content[start:end]
        return FileRange(self._content, start, end - start)

    def _refused(self, answer: RegistryResponse) -> EnvironmentLacking | VerificationError:
        if answer.status in {401, 403}:
            return self._exchange.denied(self._scopes, response_words(answer))
        if error_code(answer) in {"DIGEST_INVALID", "SIZE_INVALID"}:
            return VerificationError(
                "blob-mismatch",
                f"blob {self._descriptor.digest} was corrupted during the upload: {response_words(answer)}",
                place=str(self._content) if isinstance(self._content, Path) else self._place,
                hint="the file was damaged or changed, or a proxy alters uploads: run `relbuild store fsck` and retry",
            )
        return registry_refused(answer, f"accept blob {self._descriptor.digest}", self._place)


def _received(answer: RegistryResponse, otherwise: int) -> int:
    """Return the number of arrived bytes, from the Range header; `otherwise` without one."""
    match = _RANGE.fullmatch(answer.header("range").strip())
    return int(match[1]) + 1 if match else otherwise


def check_content(content: bytes | Path, descriptor: Descriptor) -> None:
    """Check the size of `content`, and the digest if it is bytes, before it is uploaded.

    A file is not read for this: the registry computes its digest. Raises VerificationError `blob-mismatch`.
    """
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    same = size == descriptor.size and (isinstance(content, Path) or Digest.of(content) == descriptor.digest)
    if not same:
        raise VerificationError("blob-mismatch", f"the content to upload does not match {descriptor.digest}")
