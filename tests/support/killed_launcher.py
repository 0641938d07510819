"""Launches instances and waits to be killed: the program of `test_killed.py`. Says `up` on stdout for each.

    python -m tests.support.killed_launcher STATE ROOT INSTANCES SESSIONS [worker]

With `worker`, another process launches, and this one says its number first and goes on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from pathlib import Path

from pipeline.model.image import ImageConfig
from pipeline.model.limits import Limits
from pipeline.sandbox import (
    build_session,
    find_runtime,
    launch,
    open_network,
    open_sandbox_registry,
    publish_port,
    reserve_port,
)

BODY = "trap '' TERM; sleep 1000 & while :; do echo talking; sleep 0.2; done"
"""Has a child, writes, and does not care to be asked."""


def launch_and_wait(state: Path, root: Path, instances: int, sessions: int) -> None:
    """Until killed."""
    sandboxes = open_sandbox_registry(state, find_runtime())
    image = ImageConfig("amd64", 0, entrypoint=("/bin/sh", "-c"), command=(BODY,), volumes=("/data",))
    limits = Limits(milli_cpus=500, memory=64 << 20, pids=50, bandwidth=10_000_000, io_bandwidth=5 << 20)
    with contextlib.ExitStack() as closing:
        network = closing.enter_context(open_network(talk=True))
        for number in range(instances):
            instance = closing.enter_context(
                launch(image, [root], limits, sandboxes=sandboxes, name=f"i{number}", network=network)
            )
            closing.enter_context(publish_port(instance, closing.enter_context(reserve_port(0)), 80))
            print("up", flush=True)
        for _ in range(sessions):
            session = closing.enter_context(build_session([root], sandboxes=sandboxes))
            threading.Thread(target=session.run, args=(["/bin/sleep", "1000"],), daemon=True).start()
            print("up", flush=True)
        threading.Event().wait()


def _main(state: str, root: str, instances: str, sessions: str, *how: str) -> None:
    work = (Path(state), Path(root), int(instances), int(sessions))
    if how:
        worker = multiprocessing.get_context("forkserver").Process(target=launch_and_wait, args=work)
        worker.start()
        print(worker.pid, flush=True)
        sys.stdin.read()
    else:
        launch_and_wait(*work)


if __name__ == "__main__":
    _main(*sys.argv[1:])
