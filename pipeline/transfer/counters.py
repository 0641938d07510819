"""Count HTTP requests by method and status, and the bytes of bodies sent and received."""

from __future__ import annotations

import threading
from collections import Counter

from pipeline.lazy_dataclasses import dataclass

UNANSWERED = 0
"""In place of a status: there was no response to the request."""


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """Numbers of requests and bytes counted so far.

    `requests`: (method, status, number), sorted; those to token servers and redirected ones count too. `sent` and
    `received`: bytes of bodies, without headers.
    """

    requests: tuple[tuple[str, int, int], ...] = ()
    sent: int = 0
    received: int = 0

    def count(self, *methods: str) -> int:
        """Return the number of requests with these methods; without methods, of all."""
        return sum(number for method, _, number in self.requests if not methods or method in methods)

    def __sub__(self, earlier: TrafficCounts) -> TrafficCounts:
        """Return what was counted since `earlier`, from the same meter."""
        left = Counter({(method, status): number for method, status, number in self.requests})
        left.subtract({(method, status): number for method, status, number in earlier.requests})
        return TrafficCounts(_rows(left), self.sent - earlier.sent, self.received - earlier.received)


class TrafficMeter:
    """Meter that counts requests and bytes, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent = 0
        self._received = 0

    def request(self, method: str, status: int) -> None:
        """Count a request with its response's status, or UNANSWERED."""
        with self._lock:
            self._requests[method, status] += 1

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
            return TrafficCounts(_rows(self._requests), self._sent, self._received)


def _rows(requests: Counter[tuple[str, int]]) -> tuple[tuple[str, int, int], ...]:
    return tuple((method, status, number) for (method, status), number in sorted(requests.items()) if number)
