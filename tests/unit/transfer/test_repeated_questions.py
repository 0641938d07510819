"""Questions asked again end in time, and only go where the ordinary client goes directly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.transfer import repeated_questions
from pipeline.transfer.question_log import KnownAnswer, NotCompared
from pipeline.transfer.repeated_questions import CONNECTIONS, QUESTIONS_EACH, ask_again, can_be_asked
from tests.support.patience import HUNG

_ENDLESS = 1 << 20
_LIST = KnownAnswer("GET", "/v2/a/referrers/sha256:00", "", 200, body=f"sha256:{0:064}", length=_ENDLESS)


@contextmanager
def _server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """HOST:PORT of a server that answers each connection in a thread, until the event is set."""
    end, threads = threading.Event(), list[threading.Thread]()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=answer, args=(connection, end)))
                threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            end.set()
            server.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def _trickle(first: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def answer(connection: socket.socket, end: threading.Event) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(first)
                while not end.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                return

    return answer


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _ENDLESS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % _ENDLESS,
    ],
    ids=["body", "chunks", "headers", "refusal"],
)
def test_a_registry_that_trickles_is_awaited_until_the_limit_and_its_threads_end(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_questions, "ANSWER_SECONDS", 0.2)
    before = set(threading.enumerate())
    with _server(_trickle(first)) as host:
        answered = ask_again(f"http://{host}", [_LIST], [], namespace="", environment={})
        workers = [one for one in set(threading.enumerate()) - before if one.daemon]
        with pytest.raises(NotCompared):
            answered()
        for worker in workers:
            worker.join(HUNG)  # The server goes on.
            assert not worker.is_alive()


def test_what_nobody_expected_in_a_thread_leads_to_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    tracebacks: list[object] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    monkeypatch.setattr(repeated_questions, "parse_challenges", fail)
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    with _server(_trickle(refusal)) as host, pytest.raises(NotCompared):
        ask_again(f"http://{host}", [_LIST], [], namespace="", environment={})()
    assert tracebacks == []


def test_all_connections_read_the_authorities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda _, purpose: read.append(purpose))
    monkeypatch.setattr(repeated_questions, "ANSWER_SECONDS", HUNG)
    all_there = threading.Barrier(CONNECTIONS)

    def leave_together(connection: socket.socket, _: threading.Event) -> None:
        with connection:
            all_there.wait(HUNG)

    questions = [_LIST] * (CONNECTIONS * QUESTIONS_EACH)
    with _server(leave_together) as host, pytest.raises(NotCompared):
        ask_again(f"https://{host}", questions, [], namespace="", environment={})()
    assert len(read) == 1


@pytest.mark.parametrize(
    ("url", "environment", "asked"),
    [
        ("https://registry.example", {}, True),
        ("https://registry.example", {"http_proxy": "http://proxy:3128"}, True),
        ("http://registry.example", {"http_proxy": "http://proxy:3128"}, False),
        ("https://registry.example", {"all_proxy": "http://proxy:3128"}, False),
        ("https://registry.example", {"https_proxy": "proxy:3128", "no_proxy": "example"}, True),
        ("https://registry.example", {"https_proxy": "proxy:3128", "no_proxy": "a, .Registry.Example"}, True),
        ("https://registry.example", {"https_proxy": "proxy:3128", "NO_PROXY": "*"}, True),
        ("https://registry.example", {"https_proxy": "proxy:3128", "no_proxy": "try.example"}, False),
        ("https://registry.example", {"https_proxy": "proxy:3128", "no_proxy": "registry.example:443"}, False),
        ("https://registry.example", {"https_proxy": "ftp://proxy"}, False),
    ],
)
def test_only_what_is_reached_without_a_proxy_is_asked_again(
    url: str, environment: dict[str, str], asked: bool
) -> None:
    assert can_be_asked(url, environment) is asked


def test_a_registry_with_certificates_of_its_own_is_not_asked_again(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    (tmp_path / ".config/containers/certs.d/registry.example").mkdir(parents=True)
    assert not can_be_asked("https://registry.example", environment)
    assert can_be_asked("http://registry.example", environment)
    with pytest.raises(NotCompared):
        ask_again("https://registry.example", [_LIST], [], namespace="", environment=environment)()
