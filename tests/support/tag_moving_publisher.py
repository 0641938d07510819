"""A publisher that moves a tag all the time, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.patience import HUNG

ROOT = Path(__file__).parents[2]

_MOVING = """
import select, sys, time
from pathlib import Path
from pipeline.mirror.backends.directory.directory_mirror import open_directory
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.store import Store
from tests.support import mirror_images
folder, prune = Path(sys.argv[1]), sys.argv[2] == "prune"
store = Store.open(folder / "store")
mirror = open_directory(folder / "mirror", create=True, clock=time.time)
repository = mirror.repository("tiny")
number, old = 0, []
while not select.select([sys.stdin], [], [], 0)[0]:
    number += 1
    made = mirror_images.image(store, number)
    put = mirror_images.publish(repository, store, made, "latest")
    mirror_images.publish(repository, store, made, f"v{number % 200}")
    if number == 1:
        print("ready", flush=True)
    old.append((put, made))
    if prune and len(old) > 60:
        goner, image = old.pop(0)
        with mirror.pruning(10) as pruning:
            tags = tuple(("tiny", tag, goner.digest) for tag in repository.tags()
                         if repository.resolve(tag) == goner.digest)
            gone = RemovalList(tags, (("tiny", goner.digest),), (image.layers[1].blob.digest,))
            pruning.quarantine(gone, time.time())
"""


@contextlib.contextmanager
def moving(folder: Path, *, prune: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that publishes to `folder/mirror` until the block ends, and prunes."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MOVING, str(folder), "prune" if prune else "keep"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
        assert process.poll() is None
        process.communicate("stop", timeout=HUNG)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
