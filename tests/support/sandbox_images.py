"""What the sandbox's tests share: images of the tiny root, waiting for words, and looking for leftovers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pipeline.model.image import ImageConfig
from pipeline.sandbox import Instance, SandboxRegistry
from pipeline.sandbox.cgroups import list_cgroups
from tests.support.patience import HUNG
from tests.support.tiny_root import ordinary


def config(*command: str, **changes: object) -> ImageConfig:
    """An image whose entrypoint is a shell, as the user `server`."""
    base = ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c"), command=command, user="server")
    return replace(base, **changes)  # type: ignore[arg-type]


def until_logged(instance: Instance, text: bytes) -> None:
    """Wait for a text in the log of an instance that lives."""
    deadline = time.monotonic() + HUNG
    while text not in instance.log:
        assert time.monotonic() < deadline, instance.log
        assert instance.alive or text in instance.log, instance.log
        instance.wait(0.01)


SERVER = "httpd -p 80 -h /srv; trap 'echo bye; exit 3' TERM; echo serving; while :; do sleep 0.05; done"


def left_behind(sandboxes: SandboxRegistry) -> list[str]:
    """Whatever of a registry's sandboxes is still on the machine."""
    groups = [f"cgroup {name}" for name in list_cgroups(sandboxes.hierarchies, sandboxes.mark)]
    files = [f"file {path.name}" for path in (sandboxes.state / "live").iterdir()]
    mounts = [place for place in _mounted() if place not in _BEFORE]
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if sandboxes.mark.encode() in content_of(path)]
    return groups + files + mounts + [str(path) for path in commands]


def _mounted() -> list[str]:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if "relbuild" in place]


_BEFORE = _mounted() if ordinary() else []
"""What an ordinary user's tests themselves run from. For root there is nothing that could be meant."""


def content_of(path: Path) -> bytes:
    """A file's bytes, none if it is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
