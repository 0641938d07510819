"""Download files into the store, verified and resumable, and small documents into memory."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol

from pipeline.digest import Digest
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.processors import whole_processors
from pipeline.progress import Progress, Task, task
from pipeline.transfer.blob_store import BlobStore
from pipeline.transfer.network import Network
from pipeline.transfer.partial_download import PartialDownload, PassingContent
from pipeline.transfer.url_fallback import try_urls
from pipeline.transfer.url_stream import ResponseStream, SourceFailed, open_url
from pipeline.urls import parse_url, shown_url

if TYPE_CHECKING:
    import httpx

DOWNLOAD_SIZE_LIMIT = 16 << 30
"""Bytes of a download whose size is unknown. The largest RPMs have a few GiB."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file to download.

    `urls` are tried in turn; `target` (its digest) and `size` are None if unknown; `label` names it in messages.
    `checksum` is one of another algorithm, (hashlib's name, hex), where the target is unknown.
    """

    urls: tuple[str, ...]
    target: Digest | None
    size: int | None
    label: str
    checksum: tuple[str, str] | None = None


class DownloadSource(Protocol):
    """Function that requests the content of a URL from `offset` on, as `open_url` does."""

    def __call__(
        self, url: str, network: Network, *, offset: int, validator: str
    ) -> AbstractContextManager[ResponseStream]: ...


def _client_source(client: httpx.Client | None) -> DownloadSource:
    def source(url: str, network: Network, *, offset: int, validator: str) -> AbstractContextManager[ResponseStream]:
        return open_url(client, url, network, offset=offset, validator=validator, verified=True)

    return source


class _Stopped(Exception):
    """This download was stopped because another one failed."""


class _WrongPart(Exception):
    """A resumed download has another digest: the part may have been corrupt."""


def fetch(
    store: BlobStore,
    downloads: Sequence[Download],
    *,
    progress: Progress,
    parallel: int = 4,
    offline: bool = False,
    network: Network | None = None,
    source: DownloadSource | None = None,
    label: str = "files",
    passing: Callable[[Digest], PassingContent] | None = None,
) -> tuple[Digest, ...]:
    """Put every download into the store and return the digests, in the order of `downloads`.

    What is in the store already is not requested. A partial download survives a kill and is resumed by the next run. If
    a server is slow, down, or has other content, the next URL is tried, and that one again after all others
    (`url_fallback`). `offline`: only `file://` URLs are used. `source` requests URLs instead of an anonymous client of
    `network`, for example with a registry's authentication. `passing` gives each file with a `target` that is copied
    from a `file://` URL as a whole what its content passes by; not what is transferred for long.

    Raises EnvironmentLacking `network-unreachable`, `download-missing`, `offline-miss`; VerificationError
    `download-mismatch` if a server returned other content than digest and size say, and no other the right one.
    """
    wanted = tuple(dict.fromkeys(one for one in downloads if one.target is None or not store.has(one.target)))
    got: dict[Download, Digest] = {}
    if wanted:
        total = sum(one.size or 0 for one in wanted)
        with task(progress, "fetch", label, total=total or None, unit="bytes") as running, ExitStack() as stack:
            client = None
            if (
                source is None
                and not offline
                and any(not url.startswith("file:") for one in wanted for url in one.urls)
            ):
                client = stack.enter_context((network or Network()).client(parallel))
            fetcher = _Fetcher(store, source or _client_source(client), network or Network(), running, passing)
            got = dict(zip(wanted, _all(fetcher, wanted, parallel), strict=True))
            running.note(f"{len(wanted)} fetched, {len(downloads) - len(wanted)} reused")
    return tuple(got[one] if one in got else _target(one) for one in downloads)


def fetch_document(urls: Sequence[str], *, limit: int, offline: bool = False, network: Network | None = None) -> bytes:
    """Fetch a document of at most `limit` bytes from the first of `urls` that returns it.

    It is not verified: the caller has its checksum or signature, or knows that there is none. Raises EnvironmentLacking
    as `fetch` does, and VerificationError `download-too-large`.
    """
    way = network or Network()
    with ExitStack() as stack:
        client = None
        if not offline and any(not url.startswith("file:") for url in urls):
            client = stack.enter_context(way.client())

        def attempt(url: str, network: Network) -> bytes:
            return _document(client, url, network, limit)

        return try_urls(urls, way, attempt, label=shown_url(urls[0]) if urls else "a document")


def _document(client: httpx.Client | None, url: str, network: Network, limit: int) -> bytes:
    data = bytearray()
    with open_url(client, url, network) as stream:
        for piece in stream.pieces:
            data += piece
            if len(data) > limit:
                place = shown_url(url)
                raise VerificationError("download-too-large", f"{place} has more than {limit} bytes", place=place)
    return bytes(data)


def _target(one: Download) -> Digest:
    assert one.target is not None, "a download without a target is always fetched"
    return one.target


def _all(fetcher: _Fetcher, wanted: Sequence[Download], parallel: int) -> list[Digest]:
    """Fetch all of `wanted` in parallel; the first failure stops the others."""
    # Documents are fetched one by one; the module and its logging take longer to import than they.
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

    if all(url.startswith("file:") for one in wanted for url in one.urls):
        parallel = min(parallel, whole_processors())  # Nothing is waited for but the processor.
    with ThreadPoolExecutor(max(1, parallel), "fetch") as pool:
        futures = [pool.submit(fetcher.fetch, one) for one in wanted]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            fetcher.stop.set()
            for future in futures:
                future.cancel()
    errors = [error for one in futures if not one.cancelled() and (error := one.exception())]
    for kind in (VerificationError, Exception, BaseException):
        for error in errors:
            if isinstance(error, kind) and not isinstance(error, _Stopped):
                raise error
    return [future.result() for future in futures]


class _Fetcher:
    """Downloader that the threads of one `fetch` share."""

    def __init__(
        self,
        store: BlobStore,
        source: DownloadSource,
        network: Network,
        running: Task,
        passing: Callable[[Digest], PassingContent] | None,
    ) -> None:
        self.stop = threading.Event()
        self._store = store
        self._source = source
        self._network = network
        self._task = running
        self._passing = passing
        self._partial = store.metadata / "partial"
        self._partial.mkdir(exist_ok=True, mode=0o700)
        self._failures: Counter[str] = Counter()
        """Host → number of failures: the next files are requested from failing hosts last."""

    def fetch(self, one: Download) -> Digest:
        """Fetch one download from the first URL that returns it."""
        if one.target is None:
            return self._from_anywhere(one, self._unnamed)
        with self._store.locked(f"download {one.target}"):
            if self._store.has(one.target):
                self._task.advance(one.size or 0)
                return one.target
            return self._from_anywhere(one, self._named)

    def _from_anywhere(self, one: Download, get: Callable[[Download, str, Network], Digest]) -> Digest:
        def failed(url: str) -> None:
            self._failures[_host(url)] += 1

        return try_urls(
            sorted(one.urls, key=lambda url: self._failures[_host(url)]) if self._failures else one.urls,
            self._network,
            lambda url, network: get(one, url, network),
            label=one.label,
            stop=self.stop,
            failed=failed,
        )

    def _unnamed(self, one: Download, url: str, network: Network) -> Digest:
        """Download a file whose digest is unknown."""
        limit = DOWNLOAD_SIZE_LIMIT if one.size is None else one.size
        algorithm, promised = one.checksum or ("", "")
        hashed = hashlib.new(algorithm) if algorithm else None
        with self._store.writer() as blob, self._source(url, network, offset=0, validator="") as stream:
            for piece in stream.pieces:
                self._check_stopped()
                if blob.size + len(piece) > limit:
                    raise _mismatch(one, url, f"it has more than {limit} bytes")
                blob.write(piece)
                if hashed is not None:
                    hashed.update(piece)
                self._task.advance(len(piece))
            if one.size is not None and blob.size != one.size:
                raise _mismatch(one, url, f"it has {blob.size} bytes")
            if hashed is not None and hashed.hexdigest() != promised:
                raise _mismatch(one, url, f"it has {blob.size} bytes with {algorithm}:{hashed.hexdigest()}")
            return blob.digest

    def _named(self, one: Download, url: str, network: Network) -> Digest:
        """Download a file whose digest is known; if a part was corrupt, once more from the start."""
        with contextlib.suppress(_WrongPart):
            return self._resumed(one, url, network)
        return self._resumed(one, url, network)

    def _resumed(self, one: Download, url: str, network: Network) -> Digest:
        """Download a file, resuming a partial download.

        That is kept under the digest, so that any run can resume it from any mirror. Raises _WrongPart if what comes of
        it has another digest; it is dropped then.
        """
        target = _target(one)
        local = url.startswith("file:")
        limit = DOWNLOAD_SIZE_LIMIT if one.size is None else one.size
        passing = self._passing(target) if local and self._passing is not None else None
        with PartialDownload(self._partial / target.hex, passing) as partial:
            resumed = partial.load(limit)
            try:
                self._fill(partial, one, url, network, limit)
            except SourceFailed as failure:
                if failure.restart or not partial.size:
                    partial.drop()
                raise
            if partial.digest == target.hex and one.size in (None, partial.size):
                status = partial.place(self._store.blob(target))
                self._store.note_whole(target, status)
                if partial.passing is not None:
                    partial.passing.copied(status)
                return target
            if one.size is not None and partial.size < one.size and not local:
                raise SourceFailed(f"the transfer ended after {partial.size} of {one.size} bytes", again=True)
            what = f"it has {partial.size} bytes with sha256:{partial.digest}"
            partial.drop()
        if resumed:
            raise _WrongPart
        raise _mismatch(one, url, what)

    def _fill(self, partial: PartialDownload, one: Download, url: str, network: Network, limit: int) -> None:
        if partial.size and (partial.size == limit or partial.digest == _target(one).hex):
            return  # complete: killed between the last byte and the rename
        offset = partial.size
        validator = partial.validator(url) if offset else ""
        with self._source(url, network, offset=offset, validator=validator) as stream:
            partial.begin(stream.offset, url, stream.validator)
            for piece in stream.pieces:
                self._check_stopped()
                if partial.size + len(piece) > limit:
                    partial.drop()
                    raise _mismatch(one, url, f"it has more than {limit} bytes")
                partial.write(piece)
                self._task.advance(len(piece))

    def _check_stopped(self) -> None:
        if self.stop.is_set():
            raise _Stopped


def _host(url: str) -> str:
    place = parse_url(url)
    return place.place if place else ""


def _mismatch(one: Download, url: str, what: str) -> VerificationError:
    promised = [f"{one.size} bytes"] if one.size is not None else []
    promised += [str(one.target)] if one.target else []
    promised += [":".join(one.checksum)] if one.checksum else []
    return VerificationError(
        "download-mismatch",
        f"{one.label} from {shown_url(url)} does not match the metadata ({', '.join(promised)}): {what}",
        place=one.label,
        hint="the mirror is damaged or out of sync, or the file was replaced: try again later, use another mirror, "
        "or resolve again with --upgrade",
    )
