"""HTTP client for one registry: requests with authentication, limits, retries and counters."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.digest import CHUNK
from pipeline.errors import EnvironmentLacking, UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.certificates import host_certificates
from pipeline.transfer.challenge import Scope, parse_challenges
from pipeline.transfer.counters import UNANSWERED, TrafficCounts, TrafficMeter, registry_endpoint
from pipeline.transfer.credentials import CredentialStore
from pipeline.transfer.network import REDIRECTS, Network
from pipeline.transfer.question_log import QuestionLog
from pipeline.transfer.registry_auth import TOKEN_ANSWER_LIMIT, RegistryAuth, TokenRequest
from pipeline.transfer.retry import (
    TRANSIENT_STATUSES,
    RetryBudget,
    SharedPause,
    TransientFailure,
    lacks_tls,
    retry_after,
    unreachable,
)
from pipeline.transfer.url_stream import ResponseStream, SourceFailed, response_stream
from pipeline.urls import (
    Url,
    join_url,
    parse_url,
    shown_url,
)

if TYPE_CHECKING:
    import httpx

UPLOAD_ANSWER = 300.0
"""Seconds until a registry must respond to an upload: it may hash and move gigabytes first."""

ERROR_LIMIT = 64 << 10
"""Bytes of an error response that are read: enough for a registry's error; a proxy's page may be longer."""

ORIGINS_MOST = 16
"""Origins of the requests for one registry: with its token server and its storage there are two or three."""

_METHOD_IS_KEPT = frozenset({307, 308})
_T = TypeVar("_T")
_AnyBytes = TypeVar("_AnyBytes", bytes, bytes | memoryview)


@dataclass(frozen=True, slots=True)
class FileRange:
    """A part of a file: `size` bytes from `offset` on."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class RegistryResponse:
    """A response with its body. `headers`: names in lower case; `url`: after redirects."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    url: str

    def header(self, name: str) -> str:
        """Return a header's value; "" if it is missing."""
        return dict(self.headers).get(name.lower(), "")

    def location(self) -> str:
        """Return the absolute URL in the Location header; "" if it is missing."""
        return join_url(self.url, self.header("location")) if self.header("location") else ""


class RegistryClient:
    """An HTTP client for the registry at `base` (scheme, host and port).

    Authorization is sent to that origin and to token servers that are known to belong to it, and nowhere else: not to
    the target of a redirect or an upload's Location on another host.

    Raises UsageError `mirror-url` for an invalid `base`. Close it at the end; it is a context manager.
    """

    def __init__(
        self,
        base: str,
        *,
        network: Network,
        credential_store: CredentialStore,
        namespace: str = "",
        certificates: Sequence[Path] = (),
        parallel: int = 8,
        log: QuestionLog | None = None,
    ) -> None:
        """`log`: notes all questions, and answers to them."""
        root = parse_url(base)
        if root is None or not root.host:
            raise UsageError("mirror-url", f"invalid registry address: {shown_url(base)!r}", place=shown_url(base))
        self.base = base
        self.host = base.partition("://")[2].partition("/")[0]
        self.network = network
        self._origin = root.origin
        self._certificates = tuple(certificates)
        self._parallel = parallel
        self._log = log
        self._auth = RegistryAuth(root, self.host, namespace, credential_store, self._token)
        self._meter = TrafficMeter()
        self._pace = SharedPause()
        self._stack = ExitStack()
        self._clients: dict[tuple[str, str, int], httpx.Client] = {}
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, self._stack.close)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; threads that wait before a retry stop waiting."""
        self._pace.close()
        self._finalizer()

    @property
    def traffic(self) -> TrafficCounts:
        """The requests and bytes that were counted so far."""
        return self._meter.read()

    def retry_budget(self) -> RetryBudget:
        """Return a new budget for a caller that repeats several requests together (an upload)."""
        return RetryBudget(self.host, self.network.attempts, self.network.backoff, self._pace)

    def ask(
        self,
        method: str,
        target: str,
        *,
        scopes: Sequence[Scope],
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | FileRange = b"",
        once: bool = False,
    ) -> RegistryResponse:
        """Send a request to `target` and return the response, whatever its status.

        `target` is a path at the registry, or an absolute URL. The body has at most `limit` bytes (of an error, its
        first ERROR_LIMIT bytes). 401 and 403 are returned when authentication does not help: `denied` makes the error.

        Transient failures (lost connections, 429, 503 …) are retried; with `once`, for requests that must not be
        repeated blindly, they raise TransientFailure. Raises EnvironmentLacking `registry-unreachable`,
        `registry-failing`, `registry-busy`, `registry-denied` (no way to authenticate); VerificationError
        `answer-too-large`, `redirect-refused`.
        """
        url = join_url(self.base, target)

        def attempt() -> RegistryResponse:
            with self._answered(method, url, scopes, headers or {}, body) as response:
                data = self._read(response, 0 if method == "HEAD" else limit)
                seen = tuple((name.lower(), value) for name, value in response.headers.items())
                return RegistryResponse(response.status_code, seen, data, str(response.url))

        response = self._with_retries(attempt, once=once)
        if self._log is not None:
            if response.url == url and url.startswith(f"{self.base}/"):
                self._log.note(method, url.removeprefix(self.base), scopes, response, headers or {})
            else:
                self._log.spoil()
        return response

    @contextlib.contextmanager
    def stream(
        self, target: str, *, scopes: Sequence[Scope], offset: int = 0, validator: str = ""
    ) -> Iterator[ResponseStream]:
        """Yield the content of `target` from `offset` on, as `open_url` does.

        Raises SourceFailed here or while the pieces are read, and as `ask` does.
        """
        import httpx

        if self._log is not None:
            self._log.spoil()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and validator:
            headers["If-Range"] = validator
        with ExitStack() as stack:

            def attempt() -> httpx.Response:
                with ExitStack() as opening:
                    way = self._answered("GET", join_url(self.base, target), scopes, headers, b"")
                    response = opening.enter_context(way)
                    stack.push(opening.pop_all())
                return response

            response = self._with_retries(attempt, once=False)
            if response.status_code in {401, 403}:
                raise self.denied(scopes, _status(response))
            try:
                given = response_stream(response, offset)
                yield ResponseStream(given.offset, given.validator, self._counted(given.pieces))
            except (httpx.HTTPError, httpx.StreamError) as error:
                raise SourceFailed(str(error) or type(error).__name__, again=True) from error

    def denied(self, scopes: Sequence[Scope], why: str) -> EnvironmentLacking:
        """Make the error `registry-denied`, with the files searched for credentials.

        `why`: the registry's message.
        """
        return self._auth.denied(scopes, why)

    # --- one request ---------------------------------------------------------------------------

    def _with_retries(self, attempt: Callable[[], _T], *, once: bool) -> _T:
        retries = self.retry_budget()
        while True:
            self._pace.wait()
            try:
                return attempt()
            except TransientFailure as failure:
                if once:
                    raise
                retries.spend(failure)

    @contextlib.contextmanager
    def _answered(
        self, method: str, url: str, scopes: Sequence[Scope], headers: Mapping[str, str], body: bytes | FileRange
    ) -> Iterator[httpx.Response]:
        """Yield the response, its body unread, after at most REDIRECTS redirects.

        A redirect of a request with a body is followed only if its status (307, 308) keeps the method.
        """
        for _ in range(REDIRECTS + 1):
            if self._origin[0] == "https" and self._place(url).scheme != "https":
                raise VerificationError(
                    "redirect-refused",
                    f"{self.host} redirects to {shown_url(url)!r}, without TLS",
                    place=self.host,
                    hint="a registry behind a proxy must know its external scheme (X-Forwarded-Proto, or its own "
                    "setting for its URL)",
                )
            with self._authorised(method, url, scopes, headers, body) as response:
                followed = method in {"GET", "HEAD"} or response.status_code in _METHOD_IS_KEPT
                if not (response.has_redirect_location and followed):
                    if response.status_code in TRANSIENT_STATUSES:
                        raise TransientFailure(_status(response), retry_after(response.headers), answered=True)
                    yield response
                    return
                url = join_url(url, response.headers["location"])
            self._place(url)
        raise VerificationError("redirect-refused", f"more than {REDIRECTS} redirections", place=self.host)

    def _place(self, url: str) -> Url:
        """Parse the URL of a request.

        Raises VerificationError `redirect-refused` if it is not http or https.
        """
        place = parse_url(url)
        if place is None or place.scheme not in {"http", "https"} or not place.host:
            text = f"{self.host} redirects to {shown_url(url)!r}; only http and https are followed"
            raise VerificationError("redirect-refused", text, place=self.host)
        return place

    @contextlib.contextmanager
    def _authorised(
        self, method: str, url: str, scopes: Sequence[Scope], headers: Mapping[str, str], body: bytes | FileRange
    ) -> Iterator[httpx.Response]:
        ours = self._place(url).origin == self._origin
        shown = self._auth.header(scopes) if ours else ""
        with self._sent(method, url, {**headers, **_authorization(shown)}, body) as response:
            if not (ours and response.status_code == 401):
                yield response
                return
            challenges = parse_challenges(response.headers.get_list("www-authenticate"))
            self._read(response, TOKEN_ANSWER_LIMIT)
        shown = self._auth.answer(challenges, scopes, shown)
        with self._sent(method, url, {**headers, **_authorization(shown)}, body) as response:
            yield response

    @contextlib.contextmanager
    def _sent(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | FileRange
    ) -> Iterator[httpx.Response]:
        """Send one request, without redirects and authentication.

        Raises TransientFailure, also within the block.
        """
        import httpx

        from pipeline.transfer.deadlines import RequestDeadlines, build_request, stream_request

        size = body.size if isinstance(body, FileRange) else len(body)
        wanted = dict(headers)
        if method in {"POST", "PUT", "PATCH"}:
            wanted["Content-Length"] = str(size)
        slow = max(UPLOAD_ANSWER, self.network.timeout) if method in {"PUT", "PATCH"} else None
        watch = RequestDeadlines(self.network.bounds(answer=slow))
        answered, client = False, self._client(url)
        try:
            content = self._pieces(body) if size else None
            with stream_request(client, build_request(client, method, url, wanted, content), watch) as response:
                answered = True
                self._meter.request(method, response.status_code, self._endpoint(url))
                yield response
        except (httpx.HTTPError, httpx.StreamError) as error:
            if not answered:
                self._meter.request(method, UNANSWERED, self._endpoint(url))
            plain = isinstance(error, httpx.ConnectError) and lacks_tls(str(error))
            if plain or "CERTIFICATE_VERIFY_FAILED" in str(error):  # Another attempt would end as this one.
                raise unreachable(self._place(url).place, str(error)) from error
            raise TransientFailure(str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise unreachable(self.host, f"{shown_url(url)!r}: {error}") from error

    def _endpoint(self, url: str) -> str:
        """Name the endpoint of a request; one to another server is to its storage or token server."""
        place = self._place(url)
        return registry_endpoint(place.path) if place.origin == self._origin else "other server"

    def _pieces(self, body: bytes | FileRange) -> Iterator[bytes]:
        if isinstance(body, bytes):
            for start in range(0, len(body), CHUNK):
                piece = body[start : start + CHUNK]
                yield piece
                self._meter.sent(len(piece))
            return
        with body.path.open("rb") as file:
            file.seek(body.offset)
            left = body.size
            while left and (piece := file.read(min(left, CHUNK))):
                yield piece
                self._meter.sent(len(piece))
                left -= len(piece)
        if left:
            raise VerificationError(
                "file-changed", f"'{body.path}' was truncated during the upload", place=str(body.path)
            )

    def _read(self, response: httpx.Response, limit: int) -> bytes:
        began, bounds = time.monotonic(), self.network.bounds()
        data = bytearray()
        for piece in self._counted(response.iter_raw()):
            data += piece
            if response.is_error and len(data) > ERROR_LIMIT:
                break
            if not response.is_error and len(data) > limit:
                raise VerificationError(
                    "answer-too-large", f"the response of {self.host} exceeds {limit} bytes", place=str(response.url)
                )
            if time.monotonic() - began > bounds.time_limit(len(data)):
                raise TransientFailure("the response is too slow")
        return bytes(data[:ERROR_LIMIT] if response.is_error else data)

    def _counted(self, pieces: Iterator[_AnyBytes]) -> Iterator[_AnyBytes]:
        for piece in pieces:
            self._meter.received(len(piece))
            yield piece

    def _token(self, wanted: TokenRequest) -> tuple[int, bytes]:
        """Send a request to a token server; its redirects are not followed."""
        form = {"Content-Type": "application/x-www-form-urlencoded"} if wanted.form is not None else {}
        headers = {**form, **_authorization(wanted.authorization)}

        def attempt() -> tuple[int, bytes]:
            method = "GET" if wanted.form is None else "POST"
            with self._sent(method, wanted.url, headers, wanted.form or b"") as response:
                if response.status_code in TRANSIENT_STATUSES:
                    text = f"its token server: {_status(response)}"
                    raise TransientFailure(text, retry_after(response.headers), answered=True)
                return response.status_code, self._read(response, TOKEN_ANSWER_LIMIT)

        return self._with_retries(attempt, once=False)

    def _client(self, url: str) -> httpx.Client:
        """Return the HTTP client of a URL's origin.

        Each has its own, so that a host's certificates are used for that host alone.
        """
        key = self._place(url).origin
        with self._lock:
            if key not in self._clients:
                if len(self._clients) >= ORIGINS_MOST:
                    raise EnvironmentLacking(
                        "registry-unreachable",
                        f"{self.host} redirects to more than {ORIGINS_MOST} hosts",
                        place=self.host,
                    )
                own = host_certificates(self._certificates, url) if key[0] == "https" else None
                way: AbstractContextManager[httpx.Client] = self.network.client(self._parallel, certificates=own)
                self._clients[key] = self._stack.enter_context(way)
            return self._clients[key]


def _authorization(value: str) -> dict[str, str]:
    return {"Authorization": value} if value else {}


def _status(response: httpx.Response) -> str:
    return f"status {response.status_code} {response.reason_phrase[:80]}".rstrip()
