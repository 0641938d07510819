"""Whether the processes of an instance run programs of the image's architecture."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import SmokeError
from pipeline.sandbox import running_programs
from pipeline.sandbox.running_programs import require_running_programs
from tests.support.static_programs import server

OWN, OTHER = ("amd64", "arm64") if platform.machine() == "x86_64" else ("arm64", "amd64")
NO_PROCESS = 1 << 22
"""Above the greatest PID that there can be (proc(5), pid_max)."""


def instance(*pids: int) -> Any:
    return SimpleNamespace(processes=lambda: set(pids))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a file of this process's mounts, as a container's are of its own."""
    path = tmp_path / "serve"
    path.write_bytes(server(platform.machine()))
    path.chmod(0o755)
    yield from run([str(path)])


@pytest.fixture
def emulator() -> Iterator[subprocess.Popen[bytes]]:
    """A program in a file that is in none of the process's mounts, as an emulator's is."""
    handle = os.memfd_create("emulator", 0)
    os.write(handle, server(platform.machine()))
    path = f"/proc/self/fd/{handle}"
    yield from run(["/usr/bin/emulate", "/usr/sbin/serve", "serve"], executable=path, pass_fds=(handle,))
    os.close(handle)


def run(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as running:
        assert running.stdout is not None and running.stdout.read(7) == b"serving"
        yield running
        running.kill()


def test_a_program_of_the_containers_is_known_by_its_header(program: subprocess.Popen[bytes]) -> None:
    require_running_programs(instance(program.pid), OWN)
    with pytest.raises(SmokeError, match=f"/serve' is for {OWN}, but the image is for {OTHER}") as caught:
        require_running_programs(instance(NO_PROCESS, program.pid), OTHER)
    assert caught.value.code == "program-foreign"


def test_an_emulated_program_is_known_by_its_emulator(
    emulator: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = {"/usr/bin/emulate": ("s390x",)}
    monkeypatch.setattr(running_programs, "emulated_by", lambda path: registered.get(path, ()))
    require_running_programs(instance(emulator.pid), "s390x")
    with pytest.raises(SmokeError, match=f"'/usr/sbin/serve' is for s390x, but the image is for {OWN}"):
        require_running_programs(instance(emulator.pid), OWN)
    registered.clear()
    # The runtime's own program before it starts the image's: nothing is known of that one.
    require_running_programs(instance(emulator.pid), OTHER)


def test_processes_that_have_ended_are_passed_over() -> None:
    require_running_programs(instance(NO_PROCESS), OTHER)
