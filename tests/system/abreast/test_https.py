"""HTTPS by the probe: any certificate, or one that a file in the image vouches for; and what is no HTTP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.model.checks import CheckKind, attempt, judge
from pipeline.model.checks.http_check import HttpRequest
from pipeline.model.image import ImageConfig
from pipeline.model.smoke import Check, Expectation
from pipeline.model.value_rules import Rule
from pipeline.oci import make_image
from pipeline.sandbox import Instance
from pipeline.smoke.instance_probe import InstanceProbe
from tests.support.patience import HUNG


class Stand:
    """In place of an instance: a server at the other end of a pair of sockets, and one file."""

    def __init__(self, serve: Callable[[socket.socket], None], file: bytes | None) -> None:
        self._serve, self._file = serve, file
        self.files: Any = self

    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket:
        here, there = socket.socketpair()
        here.settimeout(timeout)
        threading.Thread(target=self._answer, args=(there,), daemon=True).start()
        return here

    def _answer(self, there: socket.socket) -> None:
        with there:
            there.settimeout(HUNG)
            with contextlib.suppress(OSError):
                self._serve(there)

    def read(self, path: str, *, limit: int) -> bytes | None:
        return self._file


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    key, found = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=app.test", "-addext", "subjectAltName=DNS:app.test"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", found], check=True, capture_output=True)
    yield found, key


def over_tls(certificate: tuple[Path, Path]) -> Callable[[socket.socket], None]:
    def serve(plain: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        with context.wrap_socket(plain, server_side=True) as stream:
            stream.recv(4096)
            stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")

    return serve


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(plain: socket.socket) -> None:
        plain.recv(4096)
        plain.sendall(answer)

    return serve


def ask(serve: Callable[[socket.socket], None], file: bytes | None = None, **asked: object) -> str:
    """What is wrong with the answer; empty if nothing."""
    expect = Expectation(status=(Rule(equals="200"),), body=(Rule(matches="hello"),))
    check = Check("c", CheckKind.HTTP, round(HUNG * 1000), expect, subject=HttpRequest(443, **asked))  # type: ignore[arg-type]
    image = make_image("x", "x:1", ImageConfig("amd64", 0), ())
    probe = InstanceProbe(cast(Instance, Stand(serve, file)), image)
    return judge(check, attempt(check, probe, time.monotonic() + HUNG).answer, image.config)


def test_any_certificate_will_do_unless_one_is_asked_for(certificate: tuple[Path, Path]) -> None:
    assert ask(over_tls(certificate), tls=True) == ""


def test_a_certificate_that_the_image_vouches_for(certificate: tuple[Path, Path]) -> None:
    trust = {"tls": True, "trust": "/ca.pem"}
    assert ask(over_tls(certificate), certificate[0].read_bytes(), host="app.test", **trust) == ""
    assert "not trusted" in ask(over_tls(certificate), certificate[0].read_bytes(), host="other.test", **trust)
    assert "is not in the image" in ask(over_tls(certificate), None, host="app.test", **trust)
    assert ask(over_tls(certificate), b"no certificate", host="app.test", **trust) != ""


def test_https_where_only_http_is_spoken() -> None:
    assert "the response is not TLS: ask without 'tls' ([SSL" in ask(saying(b"HTTP/1.1 400 Bad\r\n\r\n"), tls=True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the response is not HTTP"),
        (b"", "the response is not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "the response is TLS, not HTTP: ask with 'tls: true'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\nhello", "header line"),
        (b"HTTP/1.1 200 OK\r\n\r\nother", "the body does not match 'hello'"),
    ],
)
def test_what_is_no_good_answer(answer: bytes, said: str) -> None:
    assert said in ask(saying(answer))
