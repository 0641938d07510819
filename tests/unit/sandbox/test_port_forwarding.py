"""Forwarded ports: open for as long as an instance is served, and no longer."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.sandbox import kernel
from pipeline.sandbox.port_forwarding import publish_port, reserve_port


def instance(*, linked: bool = True) -> Any:
    """An instance whose address is this machine's."""
    link = SimpleNamespace(outside=-1, address="127.0.0.1") if linked else None
    return SimpleNamespace(name="tiny-1", link=link, no_link_reason="run it as root")


def test_a_port_refuses_clients_once_its_instance_is_no_longer_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "setns", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as server, reserve_port(0) as listening:
        with (
            publish_port(instance(), listening, server.getsockname()[1]) as port,
            socket.create_connection(("127.0.0.1", port)) as client,
            server.accept()[0] as accepted,
        ):
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_port_of_an_instance_without_a_link_is_closed_when_that_is_told() -> None:
    with reserve_port(0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UsageError), publish_port(instance(linked=False), listening, 80):
            pytest.fail("it is published")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
