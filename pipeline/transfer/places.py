"""One place where bytes may be had, asked once: `file://`, `http://` or `https://`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from pipeline.compression import CODECS
from pipeline.digest import chunks
from pipeline.transfer.network import Network, request
from pipeline.transfer.patience import retry_after
from pipeline.urls import parse_url

if TYPE_CHECKING:
    import httpx

_TRANSIENT = frozenset({408, 425, 429, *range(500, 600)})

_NAMED = MappingProxyType({encoding: codec.suffixes for codec in CODECS for encoding in codec.encodings})
"""Content-Encoding → how names of files end that servers label so although the file itself is what was asked for."""


class PlaceFailed(Exception):
    """The failure of a place to deliver.

    `again`: worth asking the same place again, several times. `missing`: it has no such thing, which is worth a second
    look. `offline`: it was not asked. `restart`: what was had of it already is of no use. `pause`: seconds that it asks
    to be left alone.
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
    ) -> None:
        super().__init__(text)
        self.again = again
        self.missing = missing
        self.offline = offline
        self.restart = restart
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer: its bytes from `offset` on, and its validator.

    `offset` is 0, although more was asked for, when the place cannot resume. By the validator (strong ETag or date) a
    later request knows the same content again.
    """

    offset: int
    validator: str
    pieces: Iterator[bytes]


@contextlib.contextmanager
def ask(
    client: httpx.Client | None,
    url: str,
    network: Network,
    *,
    offset: int = 0,
    validator: str = "",
    verified: bool = False,
) -> Iterator[Stream]:
    """Request `url` and yield its bytes from `offset` on.

    Without a client only `file://` is asked. `verified`: the bytes are held against a digest, so what a server calls
    their encoding does not matter; else they are a small document. Raises PlaceFailed here or while the pieces are
    read.
    """
    if url.startswith("file:"):
        yield Stream(offset, "", _file(url, offset))
        return
    place = parse_url(url)
    if place is None or place.scheme not in {"http", "https"} or not place.host:
        raise PlaceFailed("unsupported URL; only http, https and file are supported")
    if client is None:
        raise PlaceFailed("offline", offline=True)
    import httpx

    from pipeline.transfer.deadlines import Watch

    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    try:
        with request(client, url, headers, Watch(network.bounds(), whole=not verified)) as response:
            yield stream_of(response, offset, verified=verified, name=place.path)
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise PlaceFailed(str(error) or type(error).__name__, again=True) from error
    except httpx.InvalidURL as error:
        raise PlaceFailed(str(error)) from error


def stream_of(response: httpx.Response, offset: int, *, verified: bool = True, name: str = "") -> Stream:
    """Return the answer to a request for the bytes from `offset` on.

    Raises PlaceFailed here or while the pieces are read, and then httpx's own errors.

    No encoding was asked for. Web servers label compressed files with one all the same (Apache's AddEncoding), and mean
    the file as it is: that is what is read, as dnf does, where a digest or the file's `name` says that it may be.
    """
    _refuse_status(response)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" and not verified and not name.endswith(_NAMED.get(encoding, ("\0",))):
        raise PlaceFailed("the server sent a Content-Encoding that was not requested")
    resumed = response.status_code == 206
    start = response.headers.get("content-range", "")
    if resumed and not (offset and start.startswith(f"bytes {offset}-")):
        raise PlaceFailed("the server sent another range than requested")
    tag = response.headers.get("etag", "")
    known = response.headers.get("last-modified", "") if tag.startswith("W/") or not tag else tag
    return Stream(offset if resumed else 0, known, response.iter_raw())  # with a size it would lose the last bytes


def _file(url: str, offset: int) -> Iterator[bytes]:
    parts = parse_url(url)
    if parts is None:
        raise PlaceFailed("invalid URL")
    path = Path(unquote(parts.path))
    if parts.host not in {"", "localhost"}:
        raise PlaceFailed(f"a file of the host '{parts.host}' cannot be read")
    try:
        if not path.is_file():
            raise PlaceFailed("file not found", missing=True)
        with path.open("rb") as file:
            file.seek(offset)
            yield from chunks(file)
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        raise PlaceFailed(str(error)) from error


def _refuse_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206}:
        return
    text = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == 416:
        raise PlaceFailed(text, again=True, restart=True)
    if status in _TRANSIENT:
        raise PlaceFailed(text, again=True, pause=retry_after(response.headers) or 0.0)
    raise PlaceFailed(text, missing=status in {404, 410})
