"""A catalogue of small products on four workers of half a core each, against one such worker: what the cluster itself
costs.

Every worker is a process tree in a network and a control group of its own, whose share of processor (the containers'
that it makes too) the kernel holds to `--share`. Every product is built, tested and published to a directory. Both
figures are of warm workers: their stores hold the packages and the layer that all products have in common. The
efficiency is T1 / (4 · T4); with `--share 0.5` the four take two whole cores, and what scheduler and client need comes
on top.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.nightly.executors.dask.dask_executor import DaskExecutor
from pipeline.nightly.executors.executor_protocol import Requirements
from pipeline.oci import generate_key
from pipeline.progress import QUIET
from tests.support import cluster_tasks
from tests.support.cluster_tasks import ProductTask
from tests.support.machines import Machines, machines
from tests.support.product_builds import small_products
from tests.support.rpm_factory import forge

WORKERS = 4
CPU = Path("/sys/fs/cgroup/cpu")
PERIOD = 10_000
"""Microseconds: short, so that a worker that waits for its share does not wait long."""


@contextmanager
def group(share: float, processor: int) -> Iterator[list[str]]:
    """A control group of v1; the words that start a command in it, for which it is the root of all groups, on one
    processor, and so with one thread that compresses."""
    folder = CPU / f"relbuild-bench-{secrets.token_hex(4)}"
    folder.mkdir()
    (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
    (folder / "cpu.cfs_quota_us").write_text(str(int(PERIOD * share)))
    script = f'echo $$ > {folder}/cgroup.procs && mount --bind {folder} {CPU} && exec "$@"'
    try:
        yield ["taskset", "--cpu-list", str(processor), "unshare", "--mount", "sh", "-c", script, "-"]
    finally:
        deadline = time.monotonic() + 10
        while folder.exists():
            # What a worker's processes were forked from ends a moment after it.
            with suppress(OSError):
                for inner in (*folder.glob("*/"), folder):
                    inner.rmdir()
            assert time.monotonic() < deadline, (folder / "cgroup.procs").read_text()
            time.sleep(0.05)


def processor_time(pid: int) -> float:
    """Seconds of processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Catalogue:
    """Gives products to the workers of a network."""

    def __init__(self, net: Machines, packages: Path, folder: Path) -> None:
        self.net, self.packages, self.folder = net, packages, folder
        self.key, _ = generate_key(b"")

    def make(self, prefix: str, count: int) -> tuple[float, set[str]]:
        """Seconds that `count` products took, and who made them."""
        executor = DaskExecutor.join(self.net.address, QUIET, plain=True)
        waiting = [f"{prefix}-{number}" for number in range(count)]
        under_way, workers, began = 0, set(), time.monotonic()
        while waiting or under_way:
            while waiting and under_way < executor.size:
                name = waiting.pop()
                product_task = ProductTask(name, self.packages, f"dir:{self.folder}/{prefix}", self.key, self.folder)
                executor.start(name, cluster_tasks.build_and_publish, product_task, Requirements("x86_64"))
                under_way += 1
            ended = executor.next_result()
            under_way -= 1
            assert ended is not None and not ended.lost, ended
            workers.add(ended.worker)
        took = time.monotonic() - began
        executor.close()
        return took, workers

    def warm(self, names: set[str]) -> None:
        """Let every worker make something."""
        seen: set[str] = set()
        for round_ in range(20):
            seen |= self.make(f"warm-{len(names)}-{round_}", 2 * len(names))[1]
            if seen >= names:
                return
        sys.exit(f"only {', '.join(sorted(seen))} did anything")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=24)
    parser.add_argument("--share", type=float, default=0.5, help="of a core, for each worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relbuild-bench-") as place:
        folder = Path(place)
        with forge(folder) as made:
            small_products(folder / "packages", made)
        (folder / "net").mkdir()
        names = [f"worker-{number}" for number in range(WORKERS)]
        with ExitStack() as held:
            processors = sorted(os.sched_getaffinity(0))
            groups = [
                held.enter_context(group(options.share, processors[number % len(processors)]))
                for number in range(len(names))
            ]
            net = held.enter_context(machines(folder / "net"))
            print(json.dumps(measure(net, names, groups, folder, options.products), indent=2))


def measure(net: Machines, names: list[str], groups: list[list[str]], folder: Path, count: int) -> dict[str, float]:
    """T1 and T4 in seconds, the efficiency, and milliseconds of processor that a product costs scheduler and client."""
    scheduler = net.scheduler()
    catalogue = Catalogue(net, folder / "packages", folder)
    net.worker(names[0], within=groups[0])
    catalogue.warm({names[0]})
    alone, _ = catalogue.make("alone", count)
    for name, words in zip(names[1:], groups[1:], strict=True):
        net.worker(name, within=words)
    catalogue.warm(set(names))
    before = processor_time(scheduler.process.pid), time.process_time()
    together, _ = catalogue.make("together", count)
    spent = processor_time(scheduler.process.pid) - before[0], time.process_time() - before[1]
    return {
        "products": count,
        "one worker, seconds": round(alone, 2),
        "four workers, seconds": round(together, 2),
        "efficiency": round(alone / (WORKERS * together), 3),
        "scheduler, ms a product": round(spent[0] / count * 1000, 1),
        "client, ms a product": round(spent[1] / count * 1000, 1),
    }


if __name__ == "__main__":
    main()
