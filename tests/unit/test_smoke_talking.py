"""A port that answers something else first is asked anew, and one that answers in parts is heard out."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from pipeline.model.image import ImageConfig
from pipeline.model.judging import judge
from pipeline.model.probes import Rule
from pipeline.model.smoke import Check, CheckKind, Expectation
from pipeline.sandbox import Instance
from pipeline.smoke.questions import asked_until_right
from pipeline.smoke.talking import talk

CONFIG = ImageConfig("amd64", 0)


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
def serving(serve: Callable[[socket.socket, int], None]) -> Iterator[tuple[Instance, list[int]]]:
    """A server that treats its connections, numbered from 0, with `serve`; gives the numbers that were served."""
    served: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            kept = []
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    break
                kept.append(connection)
                serve(connection, len(served))
                served.append(len(served))
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        yield cast("Instance", Server(listener.getsockname()[1])), served
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(instance: Instance, pattern: str, within: int) -> tuple[bool, str]:
    expect = Expectation(exit_code=None, stdout=(Rule(matches=pattern),))
    check = Check("pings", CheckKind.PORT, within, expect, port=1, send="PING\r\n")
    deadline = time.monotonic() + within / 1000
    answer, _ = asked_until_right(lambda until: talk(check, instance, until), check, instance, CONFIG, deadline)
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
