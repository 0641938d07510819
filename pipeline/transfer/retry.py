"""Retry budget for transient HTTP failures: pauses (own, or by Retry-After), and giving up.

RFC 9110, 10.2.3.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime

from pipeline.errors import EnvironmentLacking

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed later."""

RETRY_PAUSE_MOST = 120.0
"""Seconds of a Retry-After that are waited for. If a server asks for more, the request fails and the user decides."""

THROTTLED_ATTEMPTS = 12
"""Attempts in a row at one request while the server asks for a pause. With parallel uploads to a registry with rate
limits this is frequent, and the registry chooses each pause."""


class TransientFailure(Exception):
    """Failure of a request that may succeed later.

    `pause`: seconds that the server asks to wait (None: it does not ask). `answered`: a server was reached, and
    answered with an error.
    """

    def __init__(self, text: str, pause: float | None = None, *, answered: bool = False) -> None:
        super().__init__(text)
        self.pause = pause
        self.answered = answered


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in a response's Retry-After; None if it is missing or malformed.

    A date is compared with the response's own Date, so that neither clock needs to be right.
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
    """Pause shared by all threads with requests to one server: if one must wait, all wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0
        self._closed = threading.Event()

    def hold(self, seconds: float) -> None:
        """Let all threads wait for so long before their next request."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)

    def wait(self) -> None:
        """Wait until the shared pause is over."""
        while True:
            with self._lock:
                left = self._free - time.monotonic()
            if left <= 0 or self._closed.wait(left):
                return

    def sleep(self, seconds: float) -> None:
        """Pause this thread alone."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End all pauses, now and later."""
        self._closed.set()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed.is_set()


class RetryBudget:
    """Remaining retries of one operation.

    `attempts` in all, with pauses that double from `backoff` seconds; pauses that the server asks for have a separate
    limit.
    """

    def __init__(self, place: str, attempts: int, backoff: float, pace: SharedPause) -> None:
        self._place = place
        self._attempts = attempts
        self._backoff = backoff
        self._pace = pace
        self.renew()

    def renew(self) -> None:
        """Reset the budget, because the operation has made progress."""
        self._left = max(1, self._attempts)
        self._throttled = THROTTLED_ATTEMPTS
        self._pause = self._backoff

    def spend(self, failure: TransientFailure) -> None:
        """Wait before the next attempt.

        Raises EnvironmentLacking `registry-busy`, `registry-failing` or `registry-unreachable` when no attempts are
        left.
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
            raise (failing if failure.answered else unreachable)(self._place, str(failure))
        self._pace.sleep(self._pause)
        self._pause *= 2

    def _busy(self, text: str) -> EnvironmentLacking:
        return EnvironmentLacking(
            "registry-busy",
            f"rate limit of {self._place}: {text}",
            place=self._place,
            hint="run the command again later; it resumes where it stopped",
        )


def lacks_tls(text: str) -> bool:
    """Return whether OpenSSL's error says that the server answers without TLS."""
    return any(said in text for said in ("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure"))


def unreachable(place: str, text: str) -> EnvironmentLacking:
    """Make the error of a server that cannot be reached."""
    hint = "check the network, the proxy variables and the address; run the command again; it resumes where it stopped"
    if "certificate has expired" in text or "certificate is not yet valid" in text:
        hint = "tell the server's administrator to renew its certificate, or check this machine's clock"
    elif "Hostname mismatch" in text or "IP address mismatch" in text:
        hint = "use a name that is in the server's certificate, or tell its administrator to have this one added"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "set SSL_CERT_FILE to its certificate authority, or put that into /etc/containers/certs.d/HOST/ca.crt"
    elif lacks_tls(text):
        hint = "the server does not use TLS; if that is intended, write registry+http://"
    return EnvironmentLacking("registry-unreachable", f"{place} cannot be reached: {text}", place=place, hint=hint)


def failing(place: str, text: str) -> EnvironmentLacking:
    """Make the error of a server, or of a proxy before it, that answers with an error."""
    return EnvironmentLacking(
        "registry-failing",
        f"{place} is reached, but answers with an error: {text}",
        place=place,
        hint="the registry, or a proxy in front of it, has a fault: run the command again later, or tell its "
        "administrator; the command resumes where it stopped",
    )
