"""One place where bytes may be had, asked once: `file://`, `http://` or `https://`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.digest import chunks
from pipeline.transfer.network import request

if TYPE_CHECKING:
    import httpx

PATIENCE = 120.0
"""Seconds that any request may take in all …"""

SLOWEST = 32 << 10
"""… and bytes per second that a large one must move on average, so that a trickle does not hold a build."""

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class PlaceFailed(Exception):
    """A place did not deliver. `again`: worth asking the same place once more. `missing`: it has no such
    thing. `offline`: it was not asked. `restart`: what was had of it already is of no
    use. `pause`: seconds that it asks to be left alone."""

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
    """An answer: its bytes from `offset` on (0, although more was asked for, when the place cannot resume),
    and the validator (strong ETag or date) by which a later request knows the same content again."""

    offset: int
    validator: str
    pieces: Iterator[bytes]


@contextlib.contextmanager
def ask(client: httpx.Client | None, url: str, *, offset: int = 0, validator: str = "") -> Iterator[Stream]:
    """Ask `url` for its bytes from `offset` on. Without a client only `file://` is asked. Raises PlaceFailed
    here or while the pieces are read."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        yield Stream(offset, "", _file(url, offset))
        return
    if scheme not in {"http", "https"}:
        raise PlaceFailed(f"'{scheme}:' is not spoken here, only http, https and file")
    if client is None:
        raise PlaceFailed("not asked", offline=True)
    import httpx

    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    try:
        with request(client, url, headers) as response:
            yield stream_of(response, offset)
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise PlaceFailed(str(error) or type(error).__name__, again=True) from error
    except httpx.InvalidURL as error:
        raise PlaceFailed(str(error)) from error


def stream_of(response: httpx.Response, offset: int) -> Stream:
    """The answer to a request for the bytes from `offset` on. Raises PlaceFailed here or while the pieces are read,
    and then httpx's own errors."""
    _refuse_status(response)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise PlaceFailed("the server encodes what was asked for plainly")
    resumed = response.status_code == 206
    start = response.headers.get("content-range", "")
    if resumed and not (offset and start.startswith(f"bytes {offset}-")):
        raise PlaceFailed("the server sent another range than was asked for")
    tag = response.headers.get("etag", "")
    known = response.headers.get("last-modified", "") if tag.startswith("W/") or not tag else tag
    return Stream(offset if resumed else 0, known, _body(response))


def _body(response: httpx.Response) -> Iterator[bytes]:
    began = time.monotonic()
    moved = 0
    for piece in response.iter_raw():  # with a size it would hold back, and lose, the last bytes
        yield piece
        moved += len(piece)
        if time.monotonic() - began > PATIENCE + moved / SLOWEST:
            raise PlaceFailed("the transfer is too slow", again=True)


def _file(url: str, offset: int) -> Iterator[bytes]:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"}:
        raise PlaceFailed(f"a file of the host '{parts.netloc}' cannot be read")
    try:
        if not path.is_file():
            raise PlaceFailed("there is no such file", missing=True)
        with path.open("rb") as file:
            file.seek(offset)
            yield from chunks(file)
    except OSError as error:
        raise PlaceFailed(str(error)) from error


def _refuse_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206}:
        return
    text = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == 416:
        raise PlaceFailed(text, again=True, restart=True)
    if status in _TRANSIENT:
        after = response.headers.get("retry-after", "")
        raise PlaceFailed(text, again=True, pause=float(after) if after.isdecimal() else 0.0)
    raise PlaceFailed(text, missing=status in {404, 410})
