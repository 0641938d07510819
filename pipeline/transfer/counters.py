"""Counters of HTTP requests and of the bytes of their bodies."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

UNANSWERED = 0
"""Stands for the status of a request to which no answer came."""


@dataclass(frozen=True, slots=True)
class TrafficCounts:
    """The requests and bytes that were counted until now.

    `requests`: (method, status, how many), sorted; token servers and the hosts that a registry redirects to are counted
    too. `sent` and `received`: bytes of bodies, without headers.
    """

    requests: tuple[tuple[str, int, int], ...] = ()
    sent: int = 0
    received: int = 0

    def count(self, *methods: str) -> int:
        """Return the number of requests with these methods; with none named, of all."""
        return sum(number for method, _, number in self.requests if not methods or method in methods)

    def __sub__(self, earlier: TrafficCounts) -> TrafficCounts:
        """Return what was counted after `earlier`, which was read from the same meter."""
        left = Counter({(method, status): number for method, status, number in self.requests})
        left.subtract({(method, status): number for method, status, number in earlier.requests})
        return TrafficCounts(_rows(left), self.sent - earlier.sent, self.received - earlier.received)


class TrafficMeter:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent = 0
        self._received = 0

    def request(self, method: str, status: int) -> None:
        """A request was answered with `status`, or with none (UNANSWERED)."""
        with self._lock:
            self._requests[method, status] += 1

    def sent(self, size: int) -> None:
        """Bytes of a body were handed to the connection."""
        with self._lock:
            self._sent += size

    def received(self, size: int) -> None:
        """Bytes of a body came."""
        with self._lock:
            self._received += size

    def read(self) -> TrafficCounts:
        """Return what was counted until now."""
        with self._lock:
            return TrafficCounts(_rows(self._requests), self._sent, self._received)


def _rows(requests: Counter[tuple[str, int]]) -> tuple[tuple[str, int, int], ...]:
    return tuple((method, status, number) for (method, status), number in sorted(requests.items()) if number)
