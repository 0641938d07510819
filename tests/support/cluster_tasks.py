"""What the tests of clusters give their workers to do. The workers import this file."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.mirror.address_parser import parse_address
from pipeline.nightly.executors.executor_protocol import CURRENT_WORKER, MachineFault
from pipeline.oci import load_signing_key
from pipeline.prepare import BuildEnvironment
from pipeline.progress import Progress, task
from pipeline.release import PublishOptions, publish
from pipeline.store import Store
from tests.support.patience import HUNG
from tests.support.product_builds import SmallProducts


@dataclass(frozen=True, slots=True)
class ProductTask:
    """A small product that is to be built and published. `packages` is the folder of `small_products`; `local`
    is for the store and the output on the machine that gives the work; `store` is the store's name."""

    name: str
    packages: Path
    to: str
    key: bytes
    local: Path
    store: str = "store"


def build_and_publish(work: object, progress: Progress) -> object:
    """Build, test and publish a product; its image's digest."""
    assert isinstance(work, ProductTask)
    here = CURRENT_WORKER.get()
    store = (here.store if here else work.local / "store").with_name(work.store)
    folder = (here.output if here else work.local / "output") / work.name
    folder.mkdir(parents=True, exist_ok=True)
    store.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(work.packages / "repositories.yaml", folder)
    build_env = BuildEnvironment(Store.open(store), progress, {"HOME": str(folder)}, time.time)
    built = SmallProducts(folder, build_env).build("1.0", name=work.name)
    publish(PublishOptions((built.layout,), parse_address(work.to), load_signing_key(work.key, lambda: b"")), build_env)
    return str(built.image.digest)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that says that it began, by a file `NAME.PID` in `folder` that holds its worker's name, and that ends when
    there is a file `go`."""

    name: str
    folder: Path


def wait(work: object, progress: Progress) -> object:
    """Wait. Returns the worker's name."""
    assert isinstance(work, Waiting)
    here = CURRENT_WORKER.get()
    assert here is not None
    with task(progress, "smoke", f"waits on {here.worker}"):
        progress.warn(f"begun on {here.worker}")
        time.sleep(0.5)  # So that the words above have left before anybody kills this.
        (work.folder / f"{work.name}.{os.getpid()}").write_text(here.worker)
        deadline = time.monotonic() + HUNG
        while not (work.folder / "go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return here.worker


def kill_the_worker(work: object, progress: Progress) -> object:
    """End the process that has given this."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    time.sleep(60)
    return None


def say_where(work: object, progress: Progress) -> object:
    """The worker's name."""
    here = CURRENT_WORKER.get()
    return here.worker if here else ""


def lack_on_one(work: object, progress: Progress) -> object:
    """Fail on the worker `one` for what its machine lacks; elsewhere the worker's name."""
    here = CURRENT_WORKER.get()
    assert here is not None
    return MachineFault("its store is full", "failed") if here.worker == "one" else here.worker


def return_much(work: object, progress: Progress) -> object:
    """So many characters."""
    assert isinstance(work, int)
    return "x" * work
