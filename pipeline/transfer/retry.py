"""Retries: transient failures, pauses that a server asks for, and when to give up.

The pauses are those of Retry-After (RFC 9110).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime

from pipeline.errors import EnvironmentLacking

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed."""

RETRY_PAUSE_MOST = 120.0
"""Seconds that a server may ask to be left alone. One that asks for more is not asked again: the person decides."""

THROTTLED_ATTEMPTS = 12
"""How often in a row one request is put off because the server asks for it. Someone who uploads in parallel to a
registry that counts requests meets this often, and each time at a pause that the registry chose."""


class TransientFailure(Exception):
    """The failure of a request for a reason that may pass.

    `pause`: seconds that the server asks to be left alone (None: it does not say).
    """

    def __init__(self, text: str, pause: float | None = None) -> None:
        super().__init__(text)
        self.pause = pause


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that an answer's Retry-After asks for.

    None if it says nothing that can be understood.

    A date is taken against the answer's own Date, so that neither clock needs to be right.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    until, now = _date(text), _date(headers.get("date", ""))
    return max(0.0, (until - now).total_seconds()) if until and now else None


def _date(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # only here: few servers send dates

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
    return moment if moment.tzinfo else None


class SharedPause:
    """A pause shared by all threads that speak with one server.

    When one of them is told to wait, all wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0
        self._closed = threading.Event()

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)

    def wait(self) -> None:
        """Wait until asking is allowed."""
        while True:
            with self._lock:
                left = self._free - time.monotonic()
            if left <= 0 or self._closed.wait(left):
                return

    def sleep(self, seconds: float) -> None:
        """A pause of this thread alone."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._closed.is_set()


class RetryBudget:
    """The retries that one thing has left.

    `attempts` in all, the pause between them doubling from `backoff` seconds; pauses that the server asks for count by
    themselves.
    """

    def __init__(self, place: str, attempts: int, backoff: float, pace: SharedPause) -> None:
        self._place = place
        self._attempts = attempts
        self._backoff = backoff
        self._pace = pace
        self.renew()

    def renew(self) -> None:
        """Something moved: begin anew."""
        self._left = max(1, self._attempts)
        self._throttled = THROTTLED_ATTEMPTS
        self._pause = self._backoff

    def spend(self, failure: TransientFailure) -> None:
        """Wait before the next attempt, as long as that may help.

        Raises EnvironmentLacking `registry-busy` or `registry-unreachable` when it does not.
        """
        if failure.pause is not None and failure.pause > RETRY_PAUSE_MOST:
            raise self._busy(f"it asks for a pause of {failure.pause:.0f} seconds: {failure}")
        if failure.pause is not None:
            self._throttled -= 1
            if self._throttled <= 0:
                raise self._busy(f"it refused {THROTTLED_ATTEMPTS} times in a row: {failure}")
            self._pace.hold(max(failure.pause, self._backoff))
            self._pace.wait()
            return
        self._left -= 1
        if self._left <= 0 or self._pace.closed:
            raise unreachable(self._place, str(failure))
        self._pace.sleep(self._pause)
        self._pause *= 2

    def _busy(self, text: str) -> EnvironmentLacking:
        return EnvironmentLacking(
            "registry-busy",
            f"rate limit of {self._place}: {text}",
            place=self._place,
            hint="run the command again later; it resumes where it stopped",
        )


def unreachable(place: str, text: str) -> EnvironmentLacking:
    """The error for a server that cannot be spoken with."""
    hint = "check the network, the proxy variables and the address; run the command again; it resumes where it stopped"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "set SSL_CERT_FILE to its certificate authority, or put that into /etc/containers/certs.d/HOST/ca.crt"
    elif "WRONG_VERSION_NUMBER" in text or "wrong version number" in text or "record layer failure" in text:
        hint = "the server does not use TLS; if that is intended, write registry+http://"
    return EnvironmentLacking("registry-unreachable", f"{place} cannot be reached: {text}", place=place, hint=hint)
