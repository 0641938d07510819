"""A port that answers something else first is asked anew, and one that answers in parts is heard out."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest

from pipeline.model.checks import CheckKind, judge
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import ImageConfig
from pipeline.model.probe import ListeningSocket, Unanswered
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_rules import Rule, Rules
from pipeline.oci import make_image
from pipeline.sandbox import Instance
from pipeline.smoke import network_probes
from pipeline.smoke.instance_probe import InstanceProbe
from pipeline.smoke.probes import repeat_until_right
from pipeline.smoke.stream_probe import INCOMPLETE, PROBE_ANSWER_LIMIT, StreamProbe
from tests.support.authority import Authority

pytestmark = pytest.mark.long  # They wait; others compute meanwhile.

CONFIG = ImageConfig("amd64", 0)
IMAGE = make_image("x", "x:1", CONFIG, ())


class Server:
    """Stands for an instance whose port leads to a server of the test."""

    alive = True

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def wait(self, timeout: float) -> None:
        time.sleep(timeout)


@contextmanager
def serving(
    serve: Callable[[socket.socket, int], None], *, at_once: bool = False
) -> Iterator[tuple[Instance, list[int]]]:
    """A server that treats its connections, numbered from 0, with `serve`, one after the other or all `at_once`; gives
    the numbers that were served."""
    served: list[int] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def treat(connection: socket.socket, number: int) -> None:
            # Whoever asked may have gone.
            with suppress(OSError):
                serve(connection, number)
            served.append(number)

        def work() -> None:
            kept: list[socket.socket] = []
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    break
                kept.append(connection)
                if at_once:
                    threads.append(threading.Thread(target=treat, args=(connection, len(kept) - 1)))
                    threads[-1].start()
                else:
                    treat(connection, len(kept) - 1)
            for one in threads:
                one.join()
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        yield cast("Instance", Server(listener.getsockname()[1])), served
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(instance: Instance, rule: str | Rule, within: int) -> tuple[bool, str]:
    expect = Expectation(exit_code=None, stdout=(Rule(matches=rule) if isinstance(rule, str) else rule,))
    check = Check("pings", CheckKind.PORT, within, expect, port=1, send="PING\r\n")
    deadline = time.monotonic() + within / 1000
    answer, _ = repeat_until_right(check, InstanceProbe(instance, IMAGE), deadline)
    wrong = judge(check, answer, CONFIG)
    return not wrong, wrong


def page(instance: Instance, rules: Rules, within: int, *, tls: bool = False) -> tuple[bool, str]:
    expect = Expectation(exit_code=None, status=(Rule(equals="200"),), body=rules)
    check = Check("page", CheckKind.HTTP, within, expect, subject=HttpRequest(1, tls=tls))
    answer, _ = repeat_until_right(check, InstanceProbe(instance, IMAGE), time.monotonic() + within / 1000)
    wrong = judge(check, answer, CONFIG)
    return not wrong, wrong


def test_a_server_that_is_still_loading_and_keeps_the_connection_is_asked_anew() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"+PONG\r\n" if number else b"-LOADING the data\r\n")

    with serving(serve) as (instance, served):
        assert ask(instance, r"^\+PONG", 20_000) == (True, "")
        assert served, "only a second connection gets the right answer"


def test_an_answer_in_parts_is_heard_out() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"+PO")
        time.sleep(0.4)
        connection.sendall(b"NG\r\n")

    with serving(serve) as (instance, served):
        assert ask(instance, r"^\+PONG", 20_000) == (True, "")
        assert len(served) <= 1


def test_what_never_fits_fails_with_what_was_said() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"-ERR no\r\n")

    with serving(serve) as (instance, served):
        right, detail = ask(instance, r"^\+PONG", 1500)
        assert not right and "-ERR no" in detail
        assert served


def test_it_is_asked_anew_soon_whatever_time_there_is() -> None:
    begun = time.monotonic()

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"+PONG\r\n" if time.monotonic() > begun + 0.5 else b"-LOADING the data\r\n")

    with serving(serve, at_once=True) as (instance, _):
        assert ask(instance, r"^\+PONG", 600_000) == (True, "")
        assert time.monotonic() - begun < 60


def test_one_that_is_loading_for_long_is_not_asked_without_end() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"-LOADING the data\r\n")

    with serving(serve, at_once=True) as (instance, served):
        right, detail = ask(instance, r"^\+PONG", 3000)
        assert not right and "-LOADING" in detail
        assert 4 <= len(served) <= 12


def test_a_beginning_that_takes_its_time_is_heard_out_while_it_is_asked_anew() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"+PO")
        time.sleep(1.8)
        # Only the first one comes to its end.
        connection.sendall(b"" if number else b"NG\r\n")

    with serving(serve, at_once=True) as (instance, _):
        assert ask(instance, r"^\+PONG", 20_000) == (True, "")


def test_a_long_silence_is_waited_for_on_the_first_connection() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        time.sleep(1.5)
        connection.sendall(b"+PONG\r\n")

    with serving(serve, at_once=True) as (instance, served):
        assert ask(instance, r"^\+PONG", 3000) == (True, "")
    assert served == [0]


def test_one_that_hangs_up_or_goes_away_meanwhile_is_asked_anew() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        if number < 3:
            connection.sendall(b"-ERR starting\r\n" if number else b"")
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(b"+PONG\r\n")

    with serving(serve) as (instance, _):
        assert ask(instance, r"^\+PONG", 20_000) == (True, "")


def test_what_must_not_be_said_is_waited_for_until_nothing_more_comes() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"fine\r\n")
        time.sleep(0.3)
        connection.sendall(b"ERROR\r\n" if number < 2 else b"fine\r\n")

    with serving(serve) as (instance, served):
        assert ask(instance, Rule(lacks="ERROR"), 8000) == (True, "")
        assert served[:3] == [0, 1, 2]


@pytest.fixture
def nobodys() -> Iterator[int]:
    """A port where nobody listens, nor will for the time of the test."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_a_port_where_nobody_listens_says_where_somebody_does(monkeypatch: pytest.MonkeyPatch, nobodys: int) -> None:
    found = [ListeningSocket(8443, "tcp", local=False), ListeningSocket(9000, "tcp", local=True)]
    monkeypatch.setattr(network_probes, "list_listeners", lambda instance: tuple(found))
    right, detail = ask(cast("Instance", Server(nobodys)), r"^\+PONG", 200)
    assert not right and detail.endswith("refused; it listens at 8443/tcp, 9000/tcp (from inside alone)")
    found += [ListeningSocket(number, "tcp", local=False) for number in range(10000, 10007)]
    _, detail = ask(cast("Instance", Server(nobodys)), r"^\+PONG", 200)
    assert detail.endswith(", 10004/tcp, 10005/tcp, …")


BODY = b"x" * PROBE_ANSWER_LIMIT
"""As much of an answer as is read."""

LENGTH, CHUNKED = b"Content-Length: %d\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("more", [b"", b"ERROR"], ids=["all of it", "more"])
def test_what_a_port_must_not_say_is_no_answer_where_not_all_was_read(more: bytes) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(BODY + more)
        connection.shutdown(socket.SHUT_WR)

    with serving(serve) as (instance, _):
        right, detail = ask(instance, Rule(lacks="FATAL"), 20_000)
        assert right is not bool(more)
        assert not more or "bytes of the answer were read, and the rest may be wrong" in detail
        assert ask(instance, Rule(matches="^x"), 20_000) == (True, "")


@pytest.mark.parametrize("more", [b"", b"ERROR"], ids=["all of it", "more"])
@pytest.mark.parametrize("form", [LENGTH, CHUNKED, b"Connection: close\r\n\r\n"])
def test_what_a_body_must_not_have_is_no_answer_where_not_all_was_read(form: bytes, more: bytes) -> None:
    body = BODY + more
    if form is CHUNKED:
        head, body = form, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        head = form % len(body) if form is LENGTH else form

    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + body)
        connection.shutdown(socket.SHUT_WR)

    with serving(serve) as (instance, _):
        right, detail = page(instance, (Rule(lacks="FATAL"),), 20_000)
        assert right is not bool(more), detail
        assert not more or f"only the first {PROBE_ANSWER_LIMIT} bytes of the body were read" in detail
        assert page(instance, (Rule(matches="^x"),), 20_000) == (True, "")


FORMS = {"a length": LENGTH % 12, "chunks": CHUNKED + b"c\r\n", "neither": b"Connection: close\r\n\r\n"}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_response_that_has_not_ended_by_the_deadline_is_none(form: bytes, tls: bool, tmp_path: Path) -> None:
    """Its connection is shut down then, which is how one without a length ends."""
    encrypted = server_context(tmp_path).wrap_socket if tls else None
    kept: list[socket.socket] = []

    def serve(connection: socket.socket, number: int) -> None:
        stream = encrypted(connection.dup(), server_side=True) if encrypted else connection
        kept.append(stream)
        stream.recv(4096)
        stream.sendall(b"HTTP/1.1 200 OK\r\n" + form + b"begin\n")

    with serving(serve) as (instance, _):
        for rules in ((Rule(lacks="ERROR"),), ()):
            right, detail = page(instance, rules, 700, tls=tls)
            assert not right and re.search("incomplete at the deadline|timed out", detail), detail
    for stream in kept:
        stream.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_response_without_a_length_that_ends_is_whole(tls: bool, tmp_path: Path) -> None:
    encrypted = server_context(tmp_path).wrap_socket if tls else None

    def serve(connection: socket.socket, number: int) -> None:
        with encrypted(connection.dup(), server_side=True) if encrypted else connection.dup() as stream:
            stream.recv(4096)
            stream.sendall(b"HTTP/1.1 200 OK\r\n" + FORMS["neither"] + b"begin\n")
        connection.shutdown(socket.SHUT_WR)

    with serving(serve) as (instance, _):
        assert page(instance, (Rule(lacks="ERROR"),), 20_000, tls=tls) == (True, "")


def test_an_answer_that_still_came_at_the_deadline_lacks_nothing_for_sure() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"fine\r\n")
        probe = StreamProbe(lambda within: ours, b"", (Rule(lacks="ERROR"),), deadline=time.monotonic())
        assert probe.answer() == f"{INCOMPLETE}, after fine"


def test_a_wrong_answer_that_still_came_at_the_deadline_replaces_no_complete_one() -> None:
    ours, theirs = socket.socketpair()

    class Paired(Server):
        def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
            return ours

    with theirs, pytest.raises(Unanswered, match=f"^{INCOMPLETE}, after -ERR$") as raised:
        theirs.sendall(b"-ERR\r\n")
        instance, rules = cast("Instance", Paired(1)), (Rule(matches="PONG"),)
        network_probes.probe_stream(instance, None, port=1, path="", send=b"", rules=rules, deadline=time.monotonic())
    assert raised.value.timed_out


def test_an_answer_after_which_nothing_more_came_lacks_what_it_has_not() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(b"fine\r\n")  # The connection is kept.

    with serving(serve) as (instance, _):
        assert ask(instance, Rule(lacks="ERROR"), 4000) == (True, "")


def server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(folder, "ours").issue("server"))
    return context


@pytest.mark.parametrize("told", [(), ProcessLookupError("the instance has ended")])
def test_a_port_where_nobody_listens_says_so(
    monkeypatch: pytest.MonkeyPatch, nobodys: int, told: tuple[()] | ProcessLookupError
) -> None:
    def listeners(instance: Instance) -> tuple[()]:
        if isinstance(told, ProcessLookupError):
            raise told
        return told

    monkeypatch.setattr(network_probes, "list_listeners", listeners)
    right, detail = ask(cast("Instance", Server(nobodys)), r"^\+PONG", 200)
    assert not right and detail.endswith("refused")
