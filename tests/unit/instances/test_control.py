"""The control socket of a supervisor, with commands of this machine in place of those of an instance."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import RelbuildError, SmokeError
from pipeline.instances import (
    ExecRequest,
    ExecSession,
    InstanceFolder,
    control_client,
    control_server,
    open_exec_session,
    request_stop,
    supervisor_pid,
)
from pipeline.instances.control_protocol import MESSAGE_LIMIT, socket_path
from pipeline.instances.control_server import serve_control
from pipeline.sandbox import Instance
from tests.support.patience import HUNG


@dataclass
class Attached:
    running: subprocess.Popen[bytes]
    command: Any = field(default_factory=lambda: SimpleNamespace(refusal="no such program"))
    resized: int = 0

    def wait(self, timeout: float) -> int | None:
        return self.running.poll()

    def resize(self) -> None:
        self.resized += 1


@dataclass
class MachineInstance:
    """Runs commands on this machine, as they are asked for."""

    ran: list[Attached] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, str], bool]] = field(default_factory=list)

    @contextlib.contextmanager
    def attach(
        self,
        argv: Sequence[str],
        streams: tuple[int, int, int],
        *,
        user: str,
        environment: Mapping[str, str],
        terminal: bool,
    ) -> Iterator[Attached]:
        if user == "nobody-here":
            raise SmokeError("user-unknown", "no such user", hint="another")
        if argv[0] == "ended":
            raise FileNotFoundError
        self.asked.append((user, environment, terminal))
        attached = Attached(subprocess.Popen(argv, stdin=streams[0], stdout=streams[1], stderr=streams[2]))
        self.ran.append(attached)
        try:
            yield attached
        finally:
            attached.running.kill()
            attached.running.wait()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both ends wait for each other on a busy machine."""
    monkeypatch.setattr(control_server, "_REQUEST_TIMEOUT", HUNG)
    monkeypatch.setattr(control_client, "_ANSWER_TIMEOUT", HUNG)


@pytest.fixture
def instance() -> MachineInstance:
    return MachineInstance()


@pytest.fixture
def stops() -> list[int | None]:
    return []


@pytest.fixture
def folder(tmp_path: Path, instance: MachineInstance, stops: list[int | None]) -> Iterator[InstanceFolder]:
    place = tmp_path / ("long" * 40)  # Longer than an address of a socket may be.
    place.mkdir()
    with serve_control(place, cast(Instance, instance), stops.append):
        yield InstanceFolder(place)


def run(folder: InstanceFolder, *argv: str, text: bytes = b"", **how: Any) -> tuple[int, bytes]:
    """The exit status of a command, and what it printed."""
    (source, feed), (read, write) = os.pipe(), os.pipe()
    session = open_exec_session(folder, ExecRequest(argv, **how), (source, write, write))
    with contextlib.closing(session), os.fdopen(read, "rb") as said:
        os.close(source)
        os.close(write)
        with os.fdopen(feed, "wb") as file:
            file.write(text)
        code, _ = session.outcome()
        return code, said.read()


def test_a_command_has_the_streams_and_settings_that_were_given(
    folder: InstanceFolder, instance: MachineInstance
) -> None:
    assert run(folder, "sh", "-c", "cat; exit 7", text=b"in", user="27", environment=("A=b=c",)) == (7, b"in")
    assert instance.asked == [("27", {"A": "b=c"}, False)]


def test_a_command_that_was_not_found_is_told_with_the_reason(folder: InstanceFolder) -> None:
    read, write = os.pipe()
    session = open_exec_session(folder, ExecRequest(("sh", "-c", "exit 127")), (read, write, write))
    assert session.outcome() == (127, "no such program")
    session.close()
    os.close(read)
    os.close(write)


def test_an_error_of_the_supervisor_keeps_its_code_and_hint(folder: InstanceFolder) -> None:
    with pytest.raises(RelbuildError) as raised:
        run(folder, "true", user="nobody-here")
    assert (raised.value.code, raised.value.problems[0].hint) == ("user-unknown", "another")
    assert raised.value.exit_code == 2, "6 is of tests, and nothing was tested"


def test_an_instance_that_has_ended_meanwhile_is_told(folder: InstanceFolder) -> None:
    assert run(folder, "ended")[0] == 137


def test_whoever_goes_away_ends_the_command(folder: InstanceFolder, instance: MachineInstance) -> None:
    read, write = os.pipe()
    session = open_exec_session(folder, ExecRequest(("sh", "-c", "echo up; exec sleep 600")), (read, write, write))
    os.close(write)
    with os.fdopen(read, "rb") as said:
        assert said.readline() == b"up\n"
        session.resize()
        session.close()
        assert said.read() == b""
    assert instance.ran[0].running.wait(HUNG) == -9
    assert instance.ran[0].resized


def test_a_stop_is_passed_on_with_its_time(folder: InstanceFolder, stops: list[int | None]) -> None:
    request_stop(folder, None)
    request_stop(folder, 1500)
    assert stops == [None, 1500]


@pytest.mark.parametrize(("asked", "passed"), [(10**12, 86_400_000), (-5, 0)])
def test_a_time_to_stop_that_no_poll_takes_is_limited(
    folder: InstanceFolder, stops: list[int | None], asked: int, passed: int
) -> None:
    request_stop(folder, asked)
    assert stops == [passed]


def test_with_as_many_commands_as_may_run_another_is_refused_and_a_stop_is_not(
    tmp_path: Path, instance: MachineInstance, stops: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_AT_ONCE", 1)
    folder = InstanceFolder(tmp_path)
    read, write = os.pipe()
    with serve_control(tmp_path, cast(Instance, instance), stops.append):
        session = open_exec_session(folder, ExecRequest(("sh", "-c", "echo up; exec sleep 600")), (read, write, write))
        assert os.read(read, 3) == b"up\n"
        with pytest.raises(RelbuildError) as raised:
            run(folder, "true")
        request_stop(folder, None)
        session.close()
    os.close(read)
    os.close(write)
    assert (raised.value.code, raised.value.exit_code, stops) == ("instance-busy", 8, [None])


def test_a_client_that_asks_for_nothing_is_left(
    tmp_path: Path, instance: MachineInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "_REQUEST_TIMEOUT", 0.05)
    with (
        serve_control(tmp_path, cast(Instance, instance), lambda within: None),
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
    ):
        with socket_path(tmp_path) as path:
            connection.connect(path)
        connection.settimeout(HUNG)
        assert connection.recv(MESSAGE_LIMIT) == b""


def test_a_connection_that_is_reset_is_the_end_of_the_instance() -> None:
    class Reset:
        def recv(self, size: int) -> bytes:
            raise ConnectionResetError

    with pytest.raises(RelbuildError) as raised:
        ExecSession("x", cast(socket.socket, Reset())).outcome()
    assert raised.value.code == "instance-ended"


def test_the_kernel_tells_who_the_supervisor_is(folder: InstanceFolder, tmp_path: Path) -> None:
    assert supervisor_pid(folder) == os.getpid()
    assert supervisor_pid(InstanceFolder(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    "message",
    [b"", b"{", b"[]", b'{"kind": "stop"}', b'{"kind": "exec", "request": {"argv": ["true"]}}', b'{"kind": "other"}'],
)
def test_what_is_no_request_gets_no_answer_and_harms_nobody(folder: InstanceFolder, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        with socket_path(folder.path) as path:
            connection.connect(path)
        connection.send(message)
        assert connection.recv(MESSAGE_LIMIT) == b""
    assert run(folder, "true")[0] == 0


def test_a_command_line_that_is_too_long_is_refused(folder: InstanceFolder) -> None:
    with pytest.raises(RelbuildError) as raised:
        run(folder, "echo", "x" * MESSAGE_LIMIT)
    assert raised.value.code == "command-too-long"
    assert run(folder, "true")[0] == 0


def test_one_that_does_not_run_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RelbuildError) as raised:
        request_stop(InstanceFolder(tmp_path), None)
    assert raised.value.code == "instance-ended"
