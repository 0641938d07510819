"""Ask a registry questions again whose answers are known, and compare the answers.

The standard library's HTTP client starts in a quarter of the time that httpx takes, and does what is needed here: no
body is sent, no redirect followed, nothing tried twice. Whatever is out of the ordinary (a proxy, certificates of a
host's own, an answer that is late, an error) leads to the ordinary way, which tells of it. Credentials and authorities
are those of the ordinary way.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.transfer.certificates import certificate_roots, host_certificates
from pipeline.transfer.challenge import Scope, parse_challenges, parse_scopes
from pipeline.transfer.counters import TrafficCounts, TrafficMeter, registry_endpoint
from pipeline.transfer.credentials import CredentialStore
from pipeline.transfer.network import USER_AGENT, Network
from pipeline.transfer.question_log import KnownAnswer
from pipeline.transfer.registry_auth import TOKEN_ANSWER_LIMIT, RegistryAuth, TokenRequest
from pipeline.urls import Url, parse_url

if TYPE_CHECKING:
    import ssl

CONNECTIONS = 4
"""Connections over which is asked: as many as a publication has, so that a distant registry takes no longer."""

QUESTIONS_EACH = 8
"""Questions for which a connection is worth its handshakes."""

REFUSAL_LIMIT = 64 << 10
"""Bytes of an error response, as many as the ordinary client reads."""

ANSWER_SECONDS = 10.0
"""Seconds for all of it: then the ordinary way asks, with its own patience."""


def ask_again(
    base: str,
    answers: Sequence[KnownAnswer],
    scopes: Sequence[str],
    *,
    namespace: str,
    environment: Mapping[str, str],
) -> Callable[[], TrafficCounts | None]:
    """Begin to ask the registry at `base`; return a function that awaits the answers.

    It returns the requests if the registry answers as it did; None if it does not, or may not. `scopes`: those of the
    questions, as text; `environment` has the paths of credentials, and certificates.
    """
    place = parse_url(base)
    with contextlib.suppress(RelbuildError, OSError, ValueError):
        network = Network.of(environment)
        if place is None or network.http_proxy or network.https_proxy:
            return _not_asked
        if place.scheme == "https" and host_certificates(certificate_roots(environment), base) is not None:
            return _not_asked
        wanted = tuple(scope for text in scopes for scope in parse_scopes(text))
        return _Questions(base, place, namespace, wanted, environment).ask(answers)
    return _not_asked


def _not_asked() -> None:
    return None


class _Differs(Exception):
    """An answer is another one, or cannot be had in the ordinary way."""


class _Questions:
    """Questions to one registry, in threads that have a connection each."""

    def __init__(
        self, base: str, place: Url, namespace: str, scopes: tuple[Scope, ...], environment: Mapping[str, str]
    ) -> None:
        host = base.partition("://")[2].partition("/")[0]
        self._place = place
        self._scopes = scopes
        self._auth = RegistryAuth(place, host, namespace, CredentialStore.of(environment), self._token)
        self._ca_file = Network.of(environment).ca_file
        self._roots = certificate_roots(environment)
        self._meter = TrafficMeter()
        self._waiting: deque[KnownAnswer] = deque()
        self._open: list[http.client.HTTPConnection] = []
        self._failed = False
        self._until = time.monotonic() + ANSWER_SECONDS

    def ask(self, answers: Sequence[KnownAnswer]) -> Callable[[], TrafficCounts | None]:
        """Begin to ask all; return a function that awaits the answers: see `ask_again`."""
        self._waiting.extend(answers)
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(max(1, min(CONNECTIONS, len(answers) // QUESTIONS_EACH)))
        ]
        for thread in threads:
            thread.start()
        return functools.partial(self._await, threads)

    def _await(self, threads: Sequence[threading.Thread]) -> TrafficCounts | None:
        for thread in threads:
            thread.join(max(0.0, self._until - time.monotonic()))
        late = any(thread.is_alive() for thread in threads)
        for connection in self._open:
            connection.close()
        return None if late or self._failed or self._waiting else self._meter.read()

    def _work(self) -> None:
        try:
            with contextlib.closing(self._connect(self._place)) as connection:
                while not self._failed:
                    try:
                        question = self._waiting.popleft()
                    except IndexError:
                        return
                    self._require_same(connection, question)
        except (_Differs, RelbuildError, OSError, http.client.HTTPException, ValueError):
            self._failed = True

    def _require_same(self, connection: http.client.HTTPConnection, known: KnownAnswer) -> None:
        """Ask a question; raise _Differs if its answer is another one."""
        shown = self._auth.header(self._scopes)
        response = self._send(connection, known, shown)
        if response.status == 401:
            challenges = parse_challenges(response.headers.get_all("www-authenticate") or ())
            response.read(TOKEN_ANSWER_LIMIT)
            shown = self._auth.answer(challenges, self._scopes, shown)
            response = self._send(connection, known, shown)
        body = response.read((known.length if response.status == 200 else REFUSAL_LIMIT) + 1)
        if not response.isclosed() or response.status != known.status:
            raise _Differs
        if known.digest and response.getheader("docker-content-digest") != known.digest:
            raise _Differs
        if known.size and response.getheader("content-length") != known.size:
            raise _Differs
        if known.body and str(Digest.of(body)) != known.body:
            raise _Differs

    def _send(
        self, connection: http.client.HTTPConnection, known: KnownAnswer, authorization: str
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": USER_AGENT, "Accept": known.accept or "*/*"}
        if authorization:
            headers["Authorization"] = authorization
        connection.request(known.method, known.target, headers=headers)
        response = connection.getresponse()
        self._meter.request(known.method, response.status, registry_endpoint(known.target))
        return response

    def _connect(self, place: Url) -> http.client.HTTPConnection:
        seconds = max(0.001, self._until - time.monotonic())
        host, port = place.origin[1:]
        if place.scheme == "https":
            made: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=seconds, context=self._authorities()
            )
        else:
            made = http.client.HTTPConnection(host, port, timeout=seconds)
        self._open.append(made)
        return made

    def _authorities(self) -> ssl.SSLContext:
        from pipeline.transfer.machine_authorities import MachineAuthorities

        return MachineAuthorities(self._ca_file)

    def _token(self, wanted: TokenRequest) -> tuple[int, bytes]:
        """Send a request to a token server; raise _Differs where it is out of the ordinary."""
        place = parse_url(wanted.url)
        if place is None or (place.scheme == "https" and host_certificates(self._roots, wanted.url) is not None):
            raise _Differs
        headers = {"User-Agent": USER_AGENT}
        if wanted.authorization:
            headers["Authorization"] = wanted.authorization
        if wanted.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        method = "GET" if wanted.form is None else "POST"
        target = wanted.url.partition("://")[2]
        with contextlib.closing(self._connect(place)) as connection:
            connection.request(method, f"/{target.partition('/')[2]}", body=wanted.form, headers=headers)
            response = connection.getresponse()
            body = response.read(TOKEN_ANSWER_LIMIT + 1)
        if response.status != 200 or len(body) > TOKEN_ANSWER_LIMIT:
            raise _Differs
        self._meter.request(method, response.status, "other server")
        return response.status, body
