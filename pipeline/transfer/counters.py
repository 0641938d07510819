"""Count HTTP requests by method, endpoint and status, and the bytes of their bodies."""

from __future__ import annotations

import re
import threading
from collections import Counter

from pipeline.lazy_dataclasses import dataclass

UNANSWERED = 0
"""In place of a status: there was no response to the request."""


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """Numbers of requests and bytes counted so far.

    `requests`: (method, status, number), sorted; those to token servers and redirected ones count too. `sent` and
    `received`: bytes of bodies, without headers. `kinds`: (method and endpoint, number), sorted.
    """

    requests: tuple[tuple[str, int, int], ...] = ()
    sent: int = 0
    received: int = 0
    kinds: tuple[tuple[str, int], ...] = ()

    def count(self, *methods: str) -> int:
        """Return the number of requests with these methods; without methods, of all."""
        return sum(number for method, _, number in self.requests if not methods or method in methods)

    def __sub__(self, earlier: TrafficCounts) -> TrafficCounts:
        """Return what was counted since `earlier`, from the same meter."""
        left = Counter({(method, status): number for method, status, number in self.requests})
        left.subtract({(method, status): number for method, status, number in earlier.requests})
        kinds = Counter(dict(self.kinds))
        kinds.subtract(dict(earlier.kinds))
        more = tuple((kind, number) for kind, number in sorted(kinds.items()) if number)
        return TrafficCounts(_rows(left), self.sent - earlier.sent, self.received - earlier.received, more)


class TrafficMeter:
    """Meter that counts requests and bytes, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._kinds: Counter[str] = Counter()
        self._sent = 0
        self._received = 0

    def request(self, method: str, status: int, endpoint: str) -> None:
        """Count a request to a kind of endpoint with its response's status, or UNANSWERED."""
        with self._lock:
            self._requests[method, status] += 1
            self._kinds[f"{method} {endpoint}"] += 1

    def sent(self, size: int) -> None:
        """Count bytes of a body that were written to the connection."""
        with self._lock:
            self._sent += size

    def received(self, size: int) -> None:
        """Count bytes of a body that were received."""
        with self._lock:
            self._received += size

    def read(self) -> TrafficCounts:
        """Return what was counted so far."""
        with self._lock:
            kinds = tuple(sorted(self._kinds.items()))
            return TrafficCounts(_rows(self._requests), self._sent, self._received, kinds)


_ENDPOINTS = (
    (re.compile(r"/v2/.+/blobs/uploads/.*"), "upload"),
    (re.compile(r"/v2/.+/blobs/[^/]+"), "blob"),
    (re.compile(r"/v2/.+/manifests/sha256:[^/]+"), "manifest"),
    (re.compile(r"/v2/.+/manifests/sha256-[^/.]+"), "referrers index"),
    (re.compile(r"/v2/.+/manifests/sha256-[^/]+"), "signature"),
    (re.compile(r"/v2/.+/manifests/[^/]+"), "tag"),
    (re.compile(r"/v2/.+/referrers/[^/]+"), "referrers"),
    (re.compile(r"/v2/.+/tags/list"), "tags"),
    (re.compile(r"/v2/_catalog"), "repositories"),
)


def registry_endpoint(path: str) -> str:
    """Name the endpoint of a request by its URL's path (distribution-spec 1.1, "Endpoints")."""
    return next((name for form, name in _ENDPOINTS if form.fullmatch(path)), "other")


def _rows(requests: Counter[tuple[str, int]]) -> tuple[tuple[str, int, int], ...]:
    return tuple((method, status, number) for (method, status), number in sorted(requests.items()) if number)
