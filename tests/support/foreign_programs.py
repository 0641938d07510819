"""Registries, web servers and clients that are not relbuild's: from `ci/peers`, started on the loopback, and ended with
the test."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.patience import HUNG

ROOT = Path(__file__).parents[2]


@functools.cache
def program(name: str) -> Path:
    """One of `ci/peers`' programs: docker-registry, crane, nginx, cosign (2), cosign3, oras, skopeo (of sid)."""
    done = subprocess.run([ROOT / "ci" / "peers"], check=True, capture_output=True, text=True)
    folder = done.stdout.strip()
    found = Path(folder) / name
    assert folder and found.exists(), f"ci/peers brought no {name}"
    return found


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """A port of the loopback that nobody gets by chance for as long as the block lasts.

    Nobody listens on it but a server that is told to: one that has SO_REUSEADDR, as all here do, may bind what is bound
    so and does not listen (socket(7)), and the kernel gives it to no one who asks for any port.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@contextlib.contextmanager
def served(
    argv: list[str | Path], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server for as long as the block lasts; its output goes into `log`."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    try:
        deadline = time.monotonic() + HUNG
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-4000:]
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def docker_registry(folder: Path, *, delete: bool = True, **http: object) -> Iterator[str]:
    """Debian's docker-registry, which has no referrers API, with deletion allowed or not; yields `127.0.0.1:PORT`.
    Other keyword arguments go into the `http` section of its configuration, but for `auth`, which has its own."""
    folder.mkdir(parents=True, exist_ok=True)
    auth = http.pop("auth", None)
    value: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": delete},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
    }
    if auth:
        value["auth"] = auth
    config = folder / "config.yml"
    with reserved_port() as port:
        value["http"] = {"addr": f"127.0.0.1:{port}", "secret": "of a test", **http}
        config.write_text(json.dumps(value))
        with served([program("docker-registry"), "serve", config], port, folder / "log"):
            yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def crane_registry(folder: Path) -> Iterator[str]:
    """crane's registry, another implementation, which has no referrers API either; yields `127.0.0.1:PORT`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        reserved_port() as port,
        served([program("crane"), "registry", "serve", "--address", f"127.0.0.1:{port}"], port, folder / "log"),
    ):
        yield f"127.0.0.1:{port}"
