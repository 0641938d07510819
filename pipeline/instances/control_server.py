"""The control socket of a supervisor: stops its instance and runs commands in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import assert_never

from pipeline.errors import EnvironmentLacking, RelbuildError, UsageError
from pipeline.instances.control_protocol import (
    MESSAGE_LIMIT,
    STOP_LIMIT,
    ExecRequest,
    StopCommand,
    receive_request,
    socket_path,
)
from pipeline.launch import shell_of
from pipeline.sandbox import Instance
from pipeline.system_errors import relbuild_error

_AT_ONCE = 32
"""Commands that people run in one instance at the same time."""

_CONNECTIONS = 4 * _AT_ONCE
"""Connections at the same time: those without a command last for a moment, or _REQUEST_TIMEOUT."""

_REQUEST_TIMEOUT = 2.0
"""Seconds for a client to send its request, which it does at once."""

_END_TIMEOUT = 5.0
"""Seconds that open connections get to end when the instance has; their commands are killed at once."""

_POLL_INTERVAL = 0.2
"""Seconds between looks whether the server is to end."""


@contextlib.contextmanager
def serve_control(folder: Path, instance: Instance, stop: Callable[[int | None], None]) -> Iterator[None]:
    """Serve the control socket in `folder` for as long as the block lasts.

    `stop` is called with the milliseconds until the kill (None: as it was started with), and returns at once. Only the
    owner of the folder, which is closed to others, can connect.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        with socket_path(folder) as path:
            listening.bind(path)
        listening.listen(_AT_ONCE)
        listening.settimeout(_POLL_INTERVAL)
        server = _Server(listening, instance, stop)
        thread = threading.Thread(target=server.run, name="control", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.ending.set()
            thread.join()
            server.join()


class _Server:
    def __init__(self, listening: socket.socket, instance: Instance, stop: Callable[[int | None], None]) -> None:
        self._listening, self._instance, self._stop = listening, instance, stop
        self._threads: list[threading.Thread] = []
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            except OSError:  # No descriptors left for the moment.
                self.ending.wait(_POLL_INTERVAL)
                continue
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if len(self._threads) >= _CONNECTIONS:
                connection.close()
                continue
            thread = threading.Thread(target=self._answer, args=(connection,), name="control-request", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        deadline = time.monotonic() + _END_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _answer(self, connection: socket.socket) -> None:
        # A client that has gone, or sends what is no request, gets no answer.
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(_REQUEST_TIMEOUT)
            request, streams = receive_request(connection)
            connection.settimeout(None)
            match request:
                case StopCommand():
                    self._stop(None if request.within is None else max(0, min(request.within, STOP_LIMIT * 1000)))
                    _send(connection, {"stopping": True})
                case ExecRequest():
                    _send(connection, self._admit(request, streams, connection))
                case other:
                    assert_never(other)

    def _admit(self, request: ExecRequest, streams: list[int], connection: socket.socket) -> dict[str, object]:
        if not self._free.acquire(blocking=False):
            for stream in streams:
                os.close(stream)
            return _as_answer(
                EnvironmentLacking(
                    "instance-busy",
                    f"{_AT_ONCE} commands already run in the instance",
                    hint="end one of them, and try again",
                )
            )
        try:
            return self._execute(request, streams, connection)
        finally:
            self._free.release()

    def _execute(self, request: ExecRequest, streams: list[int], connection: socket.socket) -> dict[str, object]:
        try:
            argv = request.argv or (self._shell(),)
            environment = dict(line.partition("=")[::2] for line in request.environment)
            with self._instance.attach(
                argv,
                (streams[0], streams[1], streams[2]),
                user=request.user,
                environment=environment,
                terminal=request.terminal,
            ) as command:
                while streams:
                    os.close(streams.pop())
                ended = os.pidfd_open(command.running.pid)
                try:
                    while not _readable(ended) and not self.ending.is_set() and self._connected(connection, ended):
                        command.resize()
                finally:
                    os.close(ended)
                code = command.wait(0.0)
                refusal = command.command.refusal if code == 127 else ""
            return {"exit_code": 137 if code is None else code, "refusal": refusal}
        except FileNotFoundError:
            return {"exit_code": 137, "refusal": "the instance has ended"}
        except Exception as error:
            return _as_answer(error)
        finally:
            while streams:
                os.close(streams.pop())

    def _shell(self) -> str:
        shell = shell_of(self._instance)
        if shell is None:
            raise UsageError(
                "no-shell", "the image has no shell", hint="name a program that it has: relbuild exec NAME PROGRAM"
            )
        return shell

    def _connected(self, connection: socket.socket, ended: int) -> bool:
        """Wait for a message of the client, or the command's end.

        Returns False once the client has gone: whoever runs a command and is killed ends that command.
        """
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(ended, select.POLLIN)
        while not self.ending.is_set():
            ready = [handle for handle, _ in poll.poll(_POLL_INTERVAL * 1000)]
            if ended in ready:
                return True
            if ready:
                return bool(connection.recv(MESSAGE_LIMIT))
        return True


def _readable(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _send(connection: socket.socket, answer: dict[str, object]) -> None:
    connection.send(json.dumps(answer).encode()[:MESSAGE_LIMIT])


def _as_answer(error: Exception) -> dict[str, object]:
    known = error if isinstance(error, RelbuildError) else relbuild_error(error)
    if known is None:
        raise error
    problem = known.problems[0]
    return {
        "error": {"code": problem.code, "message": problem.message, "hint": problem.hint},
        "exit_code": known.exit_code,
    }
