"""Addresses, bandwidth and published ports of real instances."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    Instance,
    SandboxRegistry,
    launch,
    open_network,
    publish_port,
    reserve_port,
)
from pipeline.sandbox.instance_network import LINK_ADDRESSES
from tests.support.bombs import (
    LIMITS,
    bomb,
    drain,
    echo,
    make_bomb_root,
    pour,
)
from tests.support.sandbox_images import until_logged

pytestmark = pytest.mark.brief


SENDING = 30
"""Seconds in which a sender that nobody stops would send some hundred MB."""


@pytest.fixture(scope="module")
def root(closed: Path) -> Path:
    return make_bomb_root(closed)


@pytest.fixture
def server(root: Path, sandboxes: SandboxRegistry) -> Iterator[Instance]:
    with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="server") as instance:
        until_logged(instance, b"serving")
        yield instance


class TestNetwork:
    @pytest.mark.alone
    def test_ten_megabits_are_ten_megabits_on_the_wire_each_way(self, root: Path, sandboxes: SandboxRegistry) -> None:
        limits = Limits(bandwidth=10_000_000)
        with launch(bomb("serve", "80"), [root], limits, sandboxes=sandboxes, name="wire") as instance:
            until_logged(instance, b"serving")
            reading = next(one for one in instance.readings() if one.name == "bandwidth")
            assert (reading.read, reading.enforced) == (10_000_000, True)
            ends = threading.Event()
            workers = []
            for what, work in ((b"s", drain), (b"r", pour)):
                connection = instance.connect(80, timeout=5, address=instance.address)
                connection.sendall(what)
                workers.append((threading.Thread(target=work, args=(connection, ends)), connection))
            for thread, _ in workers:
                thread.start()
            time.sleep(1.5)
            begun, first = time.monotonic(), instance.usage()
            time.sleep(5)
            took, last = time.monotonic() - begun, instance.usage()
            ends.set()
            for thread, connection in workers:
                thread.join()
                connection.close()
        for before, after in ((first.network_in, last.network_in), (first.network_out, last.network_out)):
            assert before is not None
            assert after is not None
            assert 9.0e6 < (after - before) * 8 / took < 11.0e6, (first, last, took)

    def test_instances_see_nothing_of_each_others_traffic(
        self, root: Path, sandboxes: SandboxRegistry, server: Instance
    ) -> None:
        with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="other") as other:
            until_logged(other, b"serving")
            assert server.address != other.address
            before = other.usage()
            data = os.urandom(1 << 20)
            assert echo(server.connect(80, timeout=5, address=server.address), data) == data
            assert (server.usage().network_in or 0) > len(data)
            assert (server.usage().network_out or 0) > len(data)
            after = other.usage()
            assert (before.network_in, before.network_out) == (after.network_in, after.network_out) == (0, 0)
            with pytest.raises(OSError, match="unreachable"):
                other.connect(80, timeout=2, address=server.address)
            assert server.pid != other.pid
            assert str(server.pid).encode() not in other.execute(["ls", "/proc"]).stdout.split()

    @pytest.mark.parametrize("talk", [True, False])
    def test_instances_talk_only_when_they_share_a_network_that_lets_them(
        self, root: Path, sandboxes: SandboxRegistry, talk: bool
    ) -> None:
        with (
            open_network(talk=talk) as network,
            launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="a", network=network) as one,
            launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="b", network=network) as two,
        ):
            until_logged(one, b"serving")
            until_logged(two, b"serving")
            if talk:
                assert echo(two.connect(80, timeout=5, address=one.address), b"hello") == b"hello"
                assert (two.usage().network_out or 0) > 0
            else:
                with pytest.raises(OSError, match="unreachable"):
                    two.connect(80, timeout=2, address=one.address)

    def test_the_machine_cannot_be_reached(self, root: Path, sandboxes: SandboxRegistry, server: Instance) -> None:
        with socket.create_server(("0.0.0.0", 0)) as listening:
            port = listening.getsockname()[1]
            hosts = ["127.0.0.1", server.gateway, "10.0.0.1", "192.0.2.1"]
            for host in hosts:
                with pytest.raises(OSError):  # refused, unreachable or timed out
                    server.connect(port, timeout=1, address=host)
            listening.settimeout(0.1)
            with pytest.raises(TimeoutError):
                listening.accept()
        text = server.execute(["cat", "/proc/net/dev", "/etc/hosts"]).stdout.decode()
        assert set(re.findall(r"^\s*(\w+):", text, re.MULTILINE)) == {"lo", "eth0"}
        assert f"{server.address}\tserver" in text

    def test_a_kernel_without_token_buckets_is_the_reason(
        self, root: Path, sandboxes: SandboxRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        def refuse(*words: object, **options: object) -> None:
            raise NetlinkError(2, "No such file or directory")

        monkeypatch.setattr(IPRoute, "tc", refuse, raising=False)
        with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="slack") as instance:
            reading = next(one for one in instance.readings() if one.name == "bandwidth")
            assert (reading.read, reading.enforced) == (None, False)
            assert "tbf" in reading.reason
            until_logged(instance, b"serving")
            assert echo(instance.connect(80, timeout=5, address=instance.address), b"x") == b"x"

    def test_where_no_link_can_be_made_the_rest_works_and_the_reason_is_said(
        self, root: Path, sandboxes: SandboxRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*words: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("pipeline.sandbox.instance_launch.create_link", refuse)
        with launch(bomb("serve", "80"), [root], LIMITS, sandboxes=sandboxes, name="cut") as instance:
            until_logged(instance, b"serving")
            assert instance.address is None
            assert echo(instance.connect(80, timeout=5), b"x") == b"x"
            reading = next(one for one in instance.readings() if one.name == "bandwidth")
            assert not reading.enforced
            assert "not permitted" in reading.reason
            assert instance.usage().network_in is None
            with reserve_port(0) as reserved, pytest.raises(UsageError) as raised, publish_port(instance, reserved, 80):
                pytest.fail("it was published")
            assert raised.value.code == "no-address"

    def test_addresses_are_reserved_ones(self, server: Instance) -> None:
        import ipaddress

        assert ipaddress.ip_address(server.address or "") in LINK_ADDRESSES


@contextlib.contextmanager
def published(instance: Instance, port: int) -> Iterator[int]:
    """Publish a port of an instance on any free one."""
    with reserve_port(0) as listening, publish_port(instance, listening, port) as number:
        yield number


class TestPublishing:
    def test_a_published_port_answers_many_at_once_and_half_closed(self, server: Instance) -> None:
        data = os.urandom(300_000)
        answers: list[bytes] = []
        with published(server, 80) as port:

            def ask() -> None:
                answers.append(echo(socket.create_connection(("127.0.0.1", port), 10), data))

            threads = [threading.Thread(target=ask) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert answers == [data] * 20
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)

    def test_a_port_that_nobody_serves_closes_the_connection(self, server: Instance) -> None:
        with published(server, 81) as port, socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""

    def test_whoever_does_not_read_stops_the_sender_and_costs_no_memory(self, server: Instance) -> None:
        with published(server, 80) as port, socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"s")
            deadline, before = time.monotonic() + SENDING, -100_000
            while (sent := server.usage().network_out or 0) - before >= 100_000:  # Until all buffers are full.
                assert time.monotonic() < deadline
                before = sent
                time.sleep(1.0)
            # Others are not held up by it.
            assert echo(socket.create_connection(("127.0.0.1", port), 5), b"x") == b"x"
