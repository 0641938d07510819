"""Network links (veth) of instances, each between two private network namespaces.

One end is in the instance's own namespace, the other in an outer one.

Both namespaces are held open by descriptors of this process and by nothing else: neither has a name, nothing of
them appears in the host's own network, and after a kill -9 they go with the last process in them. Each
instance has its own outer namespace unless an `InstanceNetwork` is shared, so that there is no bridge that could flood
one instance's packets to another. The host's own network cannot be reached from there.

A token bucket (tbf, tc-tbf(8)) at either end of the link limits what is sent into it, so that both directions
are limited. Changing the inner end needs CAP_NET_ADMIN in the container, which no process there has.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import kernel
from pipeline.sandbox.idmap import IDS

LINK_ADDRESSES = ipaddress.ip_network("198.18.0.0/15")
"""Reserved for benchmarks of devices (RFC 2544, RFC 6890), so that no real host has such an address. Every range of
IDs has one pair of addresses (RFC 3021): the even one is the outer end's, the odd one the instance's."""

_INTERFACE = "eth0"

_RATE_MAX = 2**32 - 1
"""Bytes per second that the kernel's older rate field holds: 34 Gbit/s."""

_BURST_MIN = 4096
"""Bytes: two full Ethernet frames fit, else nothing would ever be sent."""

_QUEUE_MIN = 16384

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class InstanceNetwork:
    """The outer network namespace of one or more instances.

    `handle` is a descriptor of the namespace. `talk`: packets are forwarded between the instances.
    """

    handle: int
    talk: bool


@dataclass(frozen=True, slots=True)
class Link:
    """An instance's network link (veth pair).

    `inside` and `outside` are descriptors of the namespaces, `name` is the outer end's. `unlimited`: the reason why the
    bandwidth is not limited although it should be, or "".
    """

    inside: int
    outside: int
    name: str
    address: str
    gateway: str
    unlimited: str = ""

    def rates(self) -> tuple[int | None, int | None]:
        """Bits per second that the kernel lets into the instance and out of it; None: any number."""
        return run_in_network(self.outside, _rate, self.name), run_in_network(self.inside, _rate, _INTERFACE)

    def traffic(self) -> tuple[int, int] | None:
        """Return the bytes that went into the instance and out of it, or None if the link is gone.

        The outer end counts them, with Ethernet headers.
        """
        return run_in_network(self.outside, _traffic, self.name)


def run_in_network(namespace: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call `function(…)` in a thread that has joined a network namespace.

    `namespace` is a descriptor of it. A socket stays in the namespace of the thread that made it, wherever it is used
    later.
    """

    def entered() -> _T:
        kernel.setns(namespace, kernel.CLONE_NEWNET)
        return function(*args, **kwargs)

    return _in_new_thread(entered)


def socket_in_network(namespace: int, family: socket.AddressFamily) -> socket.socket:
    """Make a TCP socket in a network namespace."""
    return run_in_network(namespace, socket.socket, family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)


def dial(namespace: int, address: str, port: int, timeout: float) -> socket.socket:
    """Open a TCP connection in a network namespace, with `timeout` (seconds) set on it."""
    connection = socket_in_network(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET)
    connection.settimeout(timeout)
    try:
        connection.connect((address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def dial_loopback(namespace: int, port: int, timeout: float) -> socket.socket:
    """Open a TCP connection to the loopback of a network namespace: IPv4, then IPv6."""
    try:
        return dial(namespace, "127.0.0.1", port, timeout)
    except ConnectionRefusedError:
        return dial(namespace, "::1", port, timeout)


@contextlib.contextmanager
def open_network(*, talk: bool = False) -> Iterator[InstanceNetwork]:
    """Create an outer network namespace that several instances share, for the block.

    Raises OSError where the kernel refuses.
    """
    handle = _new_namespace()
    try:
        run_in_network(handle, _configure_outside, talk=talk)
        yield InstanceNetwork(handle, talk)
    finally:
        os.close(handle)


@contextlib.contextmanager
def create_link(
    inside: int, base: int, bandwidth: int | None, network: InstanceNetwork | None = None
) -> Iterator[Link]:
    """Connect the empty network namespace `inside` to `network`, or to a new outer one.

    `base` is the instance's first ID, which decides on its addresses; the link has `bandwidth` bits per second each way
    (None: no limit). Raises OSError where the kernel refuses.
    """
    with contextlib.ExitStack() as closing:
        shared = closing.enter_context(open_network()) if network is None else network
        number = base // IDS % (LINK_ADDRESSES.num_addresses // 2)
        gateway, address = (str(LINK_ADDRESSES[2 * number + end]) for end in (0, 1))
        name = f"i{number}"
        run_in_network(inside, _prepare_inside)
        run_in_network(shared.handle, _create_veth, name, inside, gateway)
        run_in_network(inside, _configure_inside, address, gateway if shared.talk else None)
        unlimited = ""
        if bandwidth is not None:
            unlimited = run_in_network(shared.handle, _limit, name, bandwidth) or run_in_network(
                inside, _limit, _INTERFACE, bandwidth
            )
        yield Link(inside, shared.handle, name, address, gateway, unlimited)


def _in_new_thread(function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own and return its result.

    The thread ends afterwards, so that it need not return to its first namespace.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="network") as pool:
        return pool.submit(function).result()


def _new_namespace() -> int:
    def make() -> int:
        kernel.unshare(kernel.CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_new_thread(make)


# --- called in threads that have joined one of the namespaces ----------------------------------------


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    """Open a netlink connection in this thread's namespace. Its errors are raised as OSErrors."""
    # Here, because it takes a tenth of a second and many commands launch nothing.
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as table:
            yield table
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error


def _set_sysctl(name: str, value: str, *, needed: bool = True) -> None:
    """Set a sysctl of this thread's network namespace."""
    try:
        Path("/proc/sys/net", name).write_text(value)
    except FileNotFoundError:
        if needed:
            raise


def _configure_outside(*, talk: bool) -> None:
    _set_sysctl("ipv6/conf/default/disable_ipv6", "1", needed=False)
    if talk:
        _set_sysctl("ipv4/ip_forward", "1")


def _prepare_inside() -> None:
    # Links get no IPv6 addresses, whose announcements would be traffic in the measurements; lo keeps ::1.
    _set_sysctl("ipv6/conf/default/disable_ipv6", "1", needed=False)


def _create_veth(name: str, inside: int, gateway: str) -> None:
    with _netlink() as table:
        table.link("add", ifname=name, kind="veth", peer={"ifname": _INTERFACE, "net_ns_fd": inside})
        _bring_up(table, name, gateway)


def _configure_inside(address: str, gateway: str | None) -> None:
    with _netlink() as table:
        table.link("set", index=_index(table, "lo"), state="up")
        _bring_up(table, _INTERFACE, address)
        if gateway is not None:
            table.route("add", dst=str(LINK_ADDRESSES), gateway=gateway)


def _bring_up(table: Any, name: str, address: str) -> None:  # noqa: ANN401 - untyped library
    index = _index(table, name)
    table.addr("add", index=index, address=address, prefixlen=31)
    table.link("set", index=index, state="up")


def _index(table: Any, name: str) -> int:  # noqa: ANN401 - untyped library
    found = table.link_lookup(ifname=name)
    if not found:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
    return int(found[0])


def _limit(name: str, bandwidth: int) -> str:
    """Limit what is sent into this end; return why that failed, or ""."""
    rate = bandwidth // 8
    if not 0 < rate <= _RATE_MAX:
        return f"{bandwidth} bit/s is out of range: 8 bit/s to {_RATE_MAX * 8} bit/s"
    # Five milliseconds: short compared with measurements, long compared with timer slack.
    burst = max(_BURST_MIN, rate // 200)
    queue = burst + max(_QUEUE_MIN, rate // 20)
    try:
        with _netlink() as table:
            table.tc("add", "tbf", index=_index(table, name), rate=rate, burst=burst, limit=min(queue, _RATE_MAX))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return "this kernel has no tbf queue (CONFIG_NET_SCH_TBF)"
        return f"the kernel refused a tbf queue: {error}"
    return ""


def _rate(name: str) -> int | None:
    with _netlink() as table:
        for queue in table.get_qdiscs(index=_index(table, name)):
            if queue.get_attr("TCA_KIND") == "tbf":
                return int(queue.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")["rate"]) * 8
    return None


def _traffic(name: str) -> tuple[int, int] | None:
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        device, colon, numbers = line.partition(":")
        if colon and device.strip() == name:
            fields = numbers.split()
            return int(fields[8]), int(fields[0])
    return None
