"""Requests to the supervisor of an instance: stop it, run a command in it, tell its PID."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
from collections.abc import Sequence

from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError
from pipeline.instances.control_protocol import (
    MESSAGE_LIMIT,
    ExecRequest,
    StopCommand,
    send_control_request,
    socket_path,
)
from pipeline.instances.instance_folder import InstanceFolder
from pipeline.lazy_dataclasses import dataclass

_ANSWER_TIMEOUT = 10.0
"""Seconds for a supervisor to say that it stops its instance; it takes a millisecond."""

_CREDENTIALS = struct.Struct("3i")
"""`struct ucred` (unix(7), SO_PEERCRED): PID, UID, GID."""


def request_stop(folder: InstanceFolder, within: int | None) -> None:
    """Ask the supervisor to stop its instance; it is killed after `within` milliseconds.

    None: after the time that it was started with. Raises UsageError `instance-ended`, EnvironmentLacking
    `supervisor-silent`.
    """
    with _connect(folder) as connection:
        connection.settimeout(_ANSWER_TIMEOUT)
        try:
            send_control_request(connection, StopCommand(within))
            connection.recv(MESSAGE_LIMIT)
        except TimeoutError:
            raise EnvironmentLacking(
                "supervisor-silent",
                f"the supervisor of '{folder.name}' does not answer",
                hint=f"kill it: kill -9 {supervisor_pid(folder)}; its container ends with it",
            ) from None
        except OSError:
            raise _ended(folder) from None


def supervisor_pid(folder: InstanceFolder) -> int | None:
    """Return the PID of the instance's supervisor; None if it does not run.

    The kernel tells it, in the PID namespace of the caller.
    """
    try:
        with _connect(folder) as connection:
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except RelbuildError:
        return None
    pid: int = _CREDENTIALS.unpack(told)[0]
    return pid


@dataclass(frozen=True, slots=True)
class ExecSession:
    """A command that runs in an instance. It ends with the connection to the supervisor."""

    name: str
    connection: socket.socket

    def resize(self) -> None:
        """Say that the size of the terminal changed."""
        with contextlib.suppress(OSError):  # The command has just ended.
            self.connection.send(json.dumps({"resize": True}).encode())

    def outcome(self) -> tuple[int, str]:
        """Wait for the command's end; return its exit status.

        Also the reason why it was not started, or "". Raises UsageError `instance-ended`, and the supervisor's own
        errors: EnvironmentLacking where this machine lacks something, else UsageError, as nothing is tested here.
        """
        try:
            message = self.connection.recv(MESSAGE_LIMIT)
        except OSError:  # A supervisor that was killed resets the connection.
            message = b""
        if not message:
            raise UsageError("instance-ended", f"the instance '{self.name}' has ended")
        answer = json.loads(message)
        if "error" in answer:
            lacking = answer["exit_code"] == EnvironmentLacking.exit_code
            kind = EnvironmentLacking if lacking else UsageError
            raise kind(str(answer["error"]["code"]), str(answer["error"]["message"]), hint=answer["error"]["hint"])
        return int(answer["exit_code"]), str(answer["refusal"])

    def close(self) -> None:
        """Close the connection, which ends a command that still runs."""
        self.connection.close()


def open_exec_session(folder: InstanceFolder, request: ExecRequest, streams: Sequence[int]) -> ExecSession:
    """Start a command in a running instance with three streams of this process.

    Raises UsageError `instance-ended`, `command-too-long`.
    """
    connection = _connect(folder)
    try:
        send_control_request(connection, request, streams)
    except OSError as error:
        connection.close()
        if error.errno == errno.EMSGSIZE:
            raise UsageError(
                "command-too-long", "the command line is too long", hint="put it into a script in the instance's volume"
            ) from None
        raise _ended(folder) from None
    return ExecSession(folder.name, connection)


def _connect(folder: InstanceFolder) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with socket_path(folder.path) as path:
            connection.connect(path)
    except OSError:
        connection.close()
        raise _ended(folder) from None
    return connection


def _ended(folder: InstanceFolder) -> UsageError:
    return UsageError(
        "instance-ended",
        f"the instance '{folder.name}' does not run",
        hint=f"`relbuild ps` tells its state, `relbuild logs {folder.name}` what it printed",
    )
