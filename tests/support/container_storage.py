"""Podman and buildah with a storage of their own."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import HUNG

Storage = Callable[..., str]


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=HUNG, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def container_storage() -> Iterator[Storage]:
    """Give what runs podman or buildah with a storage of their own, whose path has to be short."""
    with tempfile.TemporaryDirectory(prefix="pod") as folder:

        def call(program: str, *words: str | Path) -> str:
            where = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
            how = ("--runtime", "runc", "--cgroup-manager", "cgroupfs") if program == "podman" else ()
            return run(program, *where, *how, *words)

        yield call
        call("podman", "rm", "--all", "--force", "--time", "1")
        call("podman", "rmi", "--all", "--force")
