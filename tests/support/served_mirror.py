"""A directory mirror that is served, by nginx or by `relbuild serve`, for those who ask it."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, open_directory
from pipeline.model.manifests import Manifest
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.patience import HUNG
from tests.support.webserver import nginx

ROOT = Path(__file__).parents[2]

_SERVE = """
import sys, time
from pathlib import Path
from pipeline.mirror.pull_server import serve_mirror
serve_mirror(Path(sys.argv[1]), "127.0.0.1", 0, clock=time.time, ready=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


def run(*argv: str | Path, timeout: float = HUNG) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def relbuild_serve(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`pipeline.mirror.pull_server.serve_mirror` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip().removeprefix("http://"), process
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Site:
    """A mirror that is served at `host`: an image with a note (1.0), and an index of it and another (both)."""

    host: str
    mirror: DirectoryMirror
    image: Manifest
    note: Manifest
    index: Manifest


@contextlib.contextmanager
def served_site(kind: str, folder: Path) -> Iterator[Site]:
    """Made in `folder`, and served by `nginx` or `relbuild serve`."""
    store = Store.open(folder / "store")
    mirror = open_directory(folder / "mirror", create=True, clock=time.time)
    repository = mirror.repository("team/tiny")
    made = [mirror_images.image(store, number) for number in (1, 2)]
    image = mirror_images.publish(repository, store, made[0], "1.0")
    note = mirror_images.attach(repository, image.descriptor, "a note")
    mirror_images.put(repository, store, made[1])
    both = mirror_images.index(*made)
    repository.put_manifest(both)
    repository.point("both", mirror_images.cleared(both), None)
    with contextlib.ExitStack() as stack:
        if kind == "nginx":
            host = stack.enter_context(nginx(mirror.place.root, folder / "nginx"))
        else:
            host, _ = stack.enter_context(relbuild_serve(mirror.place.root))
        yield Site(host, mirror, image, note, both)


def ask(host: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(host, timeout=HUNG)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
