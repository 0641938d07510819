"""The messages between a supervisor and the commands that ask it.

They are sent over a SOCK_SEQPACKET socket (unix(7)). A message is one JSON object. The first one of a connection is a
request, those of an `ExecRequest` with three descriptors: the streams of the command. Then the client may send
`{"resize": true}`, and gets one answer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json

MESSAGE_LIMIT = 64 << 10
"""Bytes of a message: less than a socket's buffer, and more than command lines are that people write."""

STOP_LIMIT = 86_400
"""Seconds that a stop may ask for: a day, longer than any server takes; poll(2) takes 24 days at most."""

_SOCKET = "control"
_STREAMS = 3


@dataclass(frozen=True, slots=True)
class StopCommand:
    """The request to stop the instance.

    `within`: milliseconds until it is killed; None: as it was started with.
    """

    within: int | None = None


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """The request to run a command in the instance, as its user unless `user` is given.

    `environment` are `NAME=value` lines. An empty `argv` is the image's shell. `terminal`: the streams are a terminal.
    """

    argv: tuple[str, ...]
    user: str = ""
    environment: tuple[str, ...] = ()
    terminal: bool = False


ControlRequest = StopCommand | ExecRequest

_KINDS: Mapping[str, type[StopCommand] | type[ExecRequest]] = {"stop": StopCommand, "exec": ExecRequest}


@contextlib.contextmanager
def socket_path(folder: Path) -> Iterator[str]:
    """Yield a path of the folder's control socket that fits into an address (108 bytes)."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{_SOCKET}"
    finally:
        os.close(handle)


def encode_request(request: ControlRequest) -> bytes:
    """Return a request as a message."""
    kind = next(name for name, of in _KINDS.items() if isinstance(request, of))
    return json.dumps({"kind": kind, "request": to_json(request)}).encode()


def decode_request(message: bytes) -> ControlRequest:
    """Return the request in a message. Raises ValueError."""
    value = json.loads(message)
    if not isinstance(value, dict) or value.get("kind") not in _KINDS:
        raise ValueError("not a request")
    return from_json(_KINDS[value["kind"]], value.get("request"))


def send_control_request(connection: socket.socket, request: ControlRequest, streams: Sequence[int] = ()) -> None:
    """Send a request with its streams. Raises OSError, EMSGSIZE for one that is too long."""
    message = encode_request(request)
    if len(message) > MESSAGE_LIMIT:
        raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
    if streams:
        socket.send_fds(connection, [message], list(streams))
    else:
        connection.send(message)


def receive_request(connection: socket.socket) -> tuple[ControlRequest, list[int]]:
    """Receive a request and its streams. Raises ValueError, OSError."""
    message, streams, _, _ = socket.recv_fds(connection, MESSAGE_LIMIT, _STREAMS)
    try:
        request = decode_request(message)
        if len(streams) != (_STREAMS if isinstance(request, ExecRequest) else 0):
            raise ValueError("not a request: wrong number of streams")
    except ValueError:
        for stream in streams:
            os.close(stream)
        raise
    return request, streams
