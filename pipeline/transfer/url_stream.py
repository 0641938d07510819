"""Request one URL (file, http, https) once, from an offset; stream it; classify failures."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pipeline.compression import CODECS
from pipeline.digest import CHUNK
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.network import Network, send_get
from pipeline.transfer.retry import retry_after
from pipeline.urls import parse_url

if TYPE_CHECKING:
    import httpx

_TRANSIENT = frozenset({408, 425, 429, *range(500, 600)})

_NAMED = MappingProxyType({encoding: codec.suffixes for codec in CODECS for encoding in codec.encodings})
"""Content-Encoding → suffixes of compressed files for which servers send it although they send the file as it is."""


class Refusal(Enum):
    """The kind of authentication that a server demands, or does not accept."""

    CERTIFICATE = "a client certificate"
    CREDENTIALS = "credentials"
    RIGHTS = "rights"
    PROXY = "credentials at the proxy"


_REFUSING = MappingProxyType(
    {
        401: Refusal.CREDENTIALS,
        403: Refusal.RIGHTS,
        407: Refusal.PROXY,
        495: Refusal.CERTIFICATE,  # nginx's own, which it sends as 400
        496: Refusal.CERTIFICATE,
    }
)
_ABOUT_CERTIFICATE = re.compile(r"\bSSL certificate\b")
"""In the title of the page that nginx sends with 400 (ngx_http_special_response.c)."""

_ALERT = re.compile(r"_ALERT_(?:CERTIFICATE_\w+|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)\b")
"""OpenSSL's names of alerts by which a server refuses a client's certificate (RFC 8446, 6.2)."""

_TITLE = re.compile(rb"<title>([ -~]{1,120})</title>", re.IGNORECASE)
_TITLE_WITHIN = 4096
"""Bytes of a page that are searched for its title."""


class SourceFailed(Exception):
    """Failure of one URL.

    `again`: it is worth several retries. `missing`: the server has no such file, which is worth one retry. `offline`:
    it was not requested. `restart`: a partial download cannot be resumed. `pause`: seconds that the server asks to
    wait. `refusal`: the client was refused for this. `failing`: the server answered with an error of its own.
    """

    def __init__(
        self,
        text: str,
        *,
        again: bool = False,
        missing: bool = False,
        offline: bool = False,
        restart: bool = False,
        pause: float = 0.0,
        refusal: Refusal | None = None,
        failing: bool = False,
    ) -> None:
        super().__init__(text)
        self.again = again
        self.missing = missing
        self.offline = offline
        self.restart = restart
        self.pause = pause
        self.refusal = refusal
        self.failing = failing


@dataclass(frozen=True, slots=True)
class ResponseStream:
    """A response: its content from `offset` on, and its validator.

    `offset` is 0 when the server cannot resume, whatever was requested. `validator` (strong ETag or date) identifies
    the same content in a later request. A piece is valid until the next one is asked for.
    """

    offset: int
    validator: str
    pieces: Iterator[bytes | memoryview]


@contextlib.contextmanager
def open_url(
    client: httpx.Client | None,
    url: str,
    network: Network,
    *,
    offset: int = 0,
    validator: str = "",
    verified: bool = False,
) -> Iterator[ResponseStream]:
    """Request `url` and yield its content from `offset` on.

    Without a client only `file://` is allowed. `verified`: the caller compares the content with a digest, so its
    Content-Encoding does not matter; otherwise it is a small document. Raises SourceFailed here or while the pieces are
    read.
    """
    if url.startswith("file:"):
        yield ResponseStream(offset, "", _file(url, offset))
        return
    place = parse_url(url)
    if place is None or place.scheme not in {"http", "https"} or not place.host:
        raise SourceFailed("unsupported URL; only http, https and file are supported")
    if client is None:
        raise SourceFailed("offline", offline=True)
    import httpx

    from pipeline.transfer.deadlines import RequestDeadlines

    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    try:
        with send_get(client, url, headers, RequestDeadlines(network.bounds(), whole=not verified)) as response:
            yield response_stream(response, offset, verified=verified, name=place.path)
    except (httpx.HTTPError, httpx.StreamError) as error:
        text = str(error) or type(error).__name__
        refusal = Refusal.CERTIFICATE if _ALERT.search(text) else None
        if isinstance(error, httpx.ProxyError) and text.startswith("407"):
            refusal = Refusal.PROXY
        raise SourceFailed(text, again=refusal is None, refusal=refusal) from error
    except httpx.InvalidURL as error:
        raise SourceFailed(str(error)) from error


def response_stream(response: httpx.Response, offset: int, *, verified: bool = True, name: str = "") -> ResponseStream:
    """Return the content of the response to a request for the bytes from `offset` on.

    Raises SourceFailed here, and httpx's errors while the pieces are read.

    No Content-Encoding was requested. Some web servers send one for compressed files all the same (Apache's
    AddEncoding), with the file as it is. Then the file is read as it is, as dnf does, if it is `verified` or its
    `name` has the matching suffix.
    """
    _refuse_status(response)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and not verified and not name.endswith(_NAMED.get(encoding, ("\0",))):
        raise SourceFailed("the server sent a Content-Encoding that was not requested")
    resumed = response.status_code == 206
    start = response.headers.get("content-range", "")
    if resumed and not (offset and start.startswith(f"bytes {offset}-")):
        raise SourceFailed("the server sent another range than requested")
    tag = response.headers.get("etag", "")
    known = response.headers.get("last-modified", "") if tag.startswith("W/") or not tag else tag
    return ResponseStream(
        offset if resumed else 0, known, response.iter_raw()
    )  # with a size it would lose the last bytes


def url_file(url: str) -> Path:
    """Return the path of the file that a `file:` URL names. Raises SourceFailed."""
    parts = parse_url(url)
    if parts is None:
        raise SourceFailed("invalid URL")
    if "?" in url or "#" in url:
        raise SourceFailed("a file's URL has no query or fragment; write '?' as %3F and '#' as %23")
    if parts.host not in {"", "localhost"}:
        raise SourceFailed(f"a file of the host '{parts.host}' cannot be read")
    return Path(unquote(parts.path))


def _file(url: str, offset: int) -> Iterator[memoryview]:
    path = url_file(url)
    try:
        if not path.is_file():
            raise SourceFailed("file not found", missing=True)
        with path.open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - offset
            file.seek(offset)
            # One buffer, which stays in the processor's cache while it is written and hashed.
            piece = memoryview(bytearray(min(CHUNK, max(left, 0) + 1)))
            while size := file.readinto(piece):
                yield piece[:size]
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        raise SourceFailed(str(error)) from error


def _refuse_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206}:
        return
    text = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == 416:
        raise SourceFailed(text, again=True, restart=True)
    if status in _TRANSIENT:
        raise SourceFailed(text, again=True, pause=retry_after(response.headers) or 0.0, failing=status >= 500)
    title = _title(response) if status == 400 or status in _REFUSING else ""
    refusal = Refusal.CERTIFICATE if _ABOUT_CERTIFICATE.search(title) else _REFUSING.get(status)
    told = f"{text} ({title})" if title and refusal is Refusal.CERTIFICATE else text
    raise SourceFailed(told, missing=status in {404, 410}, refusal=refusal)


def _title(response: httpx.Response) -> str:
    """Return the title of the HTML page in a response; "" if it has none."""
    data = b""
    for piece in response.iter_raw():
        data += piece[:_TITLE_WITHIN]
        if len(data) >= _TITLE_WITHIN:
            break
    found = _TITLE.search(data[:_TITLE_WITHIN])
    return found.group(1).decode("ascii") if found else ""
