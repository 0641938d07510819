"""Inspection of a running container from the host: processes, sockets, mounts and files.

Nothing in the image is run. Files are looked up by `RootFs` with the root of the instance's first process as `/`,
so that no link in the image leads outside; what is read is bounded.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SmokeError
from pipeline.model.probe import ListeningSocket, RunningProcess
from pipeline.sandbox import Emulator, LaunchedInstance, RootFs, kernel

_TABLES = (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"))
"""Files of /proc/PID/net (proc_net_tcp(5)) and the protocol of each."""

_LISTEN, _BOUND = "0A", "07"
"""States of TCP sockets that listen, and of UDP sockets that are bound and not connected."""

_TABLE_LIMIT = 4 << 20
"""Bytes of a table of sockets; a line has 150."""

_CMDLINE_MAX, _CMDLINE_MIN, _CMDLINE_TOTAL = 64 << 10, 1 << 10, 16 << 20
"""Bytes that are read of a command line, at most and at least, and of all command lines together."""

_EPHEMERAL = 32768
"""The kernel gives clients' sockets ports from here on (ip_local_port_range): UDP sockets on such ports are taken for
clients and not listed."""


@contextlib.contextmanager
def open_root(instance: LaunchedInstance) -> Iterator[RootFs]:
    """Open the root as the instance sees it, volumes and scratch file systems included.

    Raises FileNotFoundError, ProcessLookupError if it has ended.
    """
    if not instance.alive or instance.pid < 0:
        raise ProcessLookupError("the instance has ended")
    handle = os.open(f"/proc/{instance.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield RootFs(handle, instance.first_id)
    finally:
        os.close(handle)


def list_processes(instance: LaunchedInstance, emulator: Emulator | None = None) -> tuple[RunningProcess, ...]:
    """List all processes of the instance, without zombies, in the order of their PIDs.

    Command lines are the programs' own: without the `emulator` that runs them.
    """
    pids = sorted(instance.processes())
    limit = max(_CMDLINE_MIN, min(_CMDLINE_MAX, _CMDLINE_TOTAL // max(1, len(pids))))
    found = (_process(pid, instance.first_id, limit, emulator) for pid in pids)
    return tuple(process for process in found if process is not None)


def _process(pid: int, base: int, limit: int, emulator: Emulator | None) -> RunningProcess | None:
    folder = Path("/proc", str(pid))
    try:
        status = (folder / "status").read_text(errors="replace")
        with (folder / "cmdline").open("rb") as file:
            words = file.read(limit)
    except OSError:
        return None
    # Not splitlines: the kernel escapes line feeds in a name that a process gives itself, and nothing else.
    facts = {key: value.strip() for key, _, value in (line.partition(":") for line in status.split("\n"))}
    if facts.get("State", "Z")[:1] in "ZX" or "Uid" not in facts:
        return None
    argv = words.rstrip(b"\0").split(b"\0")
    if emulator is not None:
        argv = emulator.program_arguments(argv)
    uid = int(facts["Uid"].split()[0]) - base
    command = " ".join(word.decode(errors="replace") for word in argv)
    program = argv[0].decode(errors="replace").rpartition("/")[2]
    return RunningProcess(pid, facts["Name"], command, program, uid, int(facts.get("NSpid", str(pid)).split()[-1]))


def list_listeners(instance: LaunchedInstance) -> tuple[ListeningSocket, ...]:
    """Find the listening sockets in the instance's network, sorted.

    Each port is listed once (reachable rather than local).

    Raises ProcessLookupError if it ends meanwhile, SmokeError `sockets-too-many` if a table is longer than the limit.
    """
    seen: dict[tuple[int, str], set[str]] = {}
    for table, protocol in _TABLES:
        for address, port, state, remote in _sockets(instance.pid, table):
            if protocol == "tcp" and state != _LISTEN:
                continue
            if protocol == "udp" and (state != _BOUND or remote.strip("0:") or port >= _EPHEMERAL):
                continue
            seen.setdefault((port, protocol), set()).add(address)
    if not instance.alive:
        raise ProcessLookupError("the instance has ended")
    return tuple(sorted(_listener(port, protocol, addresses) for (port, protocol), addresses in seen.items()))


def _listener(port: int, protocol: str, addresses: set[str]) -> ListeningSocket:
    local = all(map(is_loopback, addresses))
    return ListeningSocket(port, protocol, local, tuple(sorted(map(_address_text, addresses))))


def _sockets(pid: int, table: str) -> Iterator[tuple[str, int, str, str]]:
    try:
        with Path("/proc", str(pid), "net", table).open("rb") as file:
            data = file.read(_TABLE_LIMIT + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and table.endswith("6"):
            return  # A kernel without IPv6 has no tables of it.
        raise ProcessLookupError("the instance has ended") from error
    if len(data) > _TABLE_LIMIT:
        # A listening socket may be in the part that was not read.
        raise SmokeError(
            "sockets-too-many",
            f"the instance has too many {table} sockets (the limit is {_TABLE_LIMIT >> 20} MiB of table)",
            hint="reduce its sockets, or limit its descriptors with 'open_files'",
        )
    for line in data.decode(errors="replace").split("\n")[1:]:
        fields = line.split()
        if len(fields) > 3 and re.fullmatch(r"[0-9A-F]+:[0-9A-F]{4}", fields[1]):
            address, _, port = fields[1].partition(":")
            yield address, int(port, 16), fields[3], fields[2]


def is_loopback(address: str) -> bool:
    """Return whether an address in the form of /proc/net/tcp is loopback."""
    parsed = _parse_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _address_text(address: str) -> str:
    """Return an address in the form of /proc/net/tcp as people write it."""
    parsed = _parse_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(parsed)


def _parse_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address in the form of /proc/net/tcp.

    The form is 32-bit words, each in the host's byte order.
    """
    words = bytes.fromhex(address)
    step = -1 if sys.byteorder == "little" else 1
    turned = b"".join(words[start : start + 4][::step] for start in range(0, len(words), 4))
    return ipaddress.ip_address(turned)


def connect_socket(instance: LaunchedInstance, path: str, *, timeout: float) -> socket.socket:
    """Connect to the unix socket at `path` in the instance.

    `timeout` (seconds) stays set on the connection. Raises OSError.
    """
    with open_root(instance) as root:
        # The descriptor that is checked is the one that is connected to, whatever the image renames meanwhile.
        safely = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
        handle = kernel.openat2(root.handle, path, os.O_PATH, resolve=safely)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise ConnectionRefusedError(f"'{path}' is not a socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout)
        try:
            connection.connect(f"/proc/self/fd/{handle}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(handle)


def writable_mounts(instance: LaunchedInstance) -> tuple[str, ...]:
    """Find the mount points at which the instance can write.

    They are those that are not read-only (proc_pid_mountinfo(5)). Raises OSError if it has ended.
    """
    text = Path("/proc", str(instance.pid), "mountinfo").read_text(errors="replace")
    lines = [line.split(" ") for line in text.split("\n") if line]
    return tuple(sorted({fields[4] for fields in lines if "ro" not in fields[5].split(",")}))
