"""How many processors may be used: by affinity, and by the quotas of control groups of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import processors
from pipeline.processors import usable_processors, whole_processors

_HYBRID = "3:cpuset:/\n1:cpu,cpuacct:/a/b\n0::/\n"
_SWAPPED = "3:cpuset:/\n1:cpuacct,cpu:/a/b\n0::/\n"
"""As Linux 3.10 lists what is mounted as `cpu,cpuacct`."""


@pytest.mark.parametrize(
    ("own", "files", "usable"),
    [
        ("0::/\n", {}, 4),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "900000 100000\n"}, 4),
        ("0::/a:c\n", {"a:c/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 4),
        ("0::/\n", {"cpu.max": "1 0\n"}, 4),
        ("nonsense\n", {"cpu.max": "100000 100000\n"}, 4),
        (_HYBRID, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "100000", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, 1),
        (_HYBRID, {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 0.5),
        (_HYBRID, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000"}, 4),
        (_SWAPPED, {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 0.5),
        (_SWAPPED, {"cpuacct,cpu/a/cpu.cfs_quota_us": "50000", "cpuacct,cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        (_SWAPPED, {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        (_SWAPPED, {"cpuset/a/cpu.cfs_quota_us": "50000", "cpuset/a/cpu.cfs_period_us": "100000"}, 4),
        (None, {"cpu.max": "100000 100000\n"}, 4),
    ],
)
def test_the_smallest_bound_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, files: dict[str, str], usable: float
) -> None:
    """Of this process's groups and those above; where the place is the host's, of what is mounted."""
    mounts, groups = tmp_path / "mounts", tmp_path / "groups"
    if own is not None:
        groups.write_text(own)
    for name, text in files.items():
        (mounts / name).parent.mkdir(parents=True, exist_ok=True)
        (mounts / name).write_text(text)
    # Above what is mounted there is none of its groups.
    (tmp_path / "cpu.max").write_text("10000 100000\n")
    monkeypatch.setattr(processors, "_MOUNTS", mounts)
    monkeypatch.setattr(processors, "_OWN_GROUPS", groups)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert usable_processors() == usable


@pytest.mark.parametrize(("usable", "threads"), [(0, 1), (0.5, 1), (1, 1), (1.5, 2), (4, 4), (63.9, 64)])
def test_a_part_of_a_processor_counts_as_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, usable: float, threads: int
) -> None:
    monkeypatch.setattr(processors, "usable_processors", lambda: usable)
    assert whole_processors() == threads


_COUNTS = """
import os
from pipeline import processors
os.sched_getaffinity = lambda _: range(64)
processors._quotas = lambda: (1,)
from pipeline.layers.chunk_writer import CompressionPool, compression_workers
from pipeline.nightly.executors.open_executor import open_executor
from pipeline.nightly.executors.dask.dask_worker import WorkerCapacity
from pipeline.prepare.verified_packages import verify_threads
from pipeline.progress import QUIET
from pipeline.streams import decompression_workers
processors._quotas = lambda: (2.5,)
pool = CompressionPool()
print(compression_workers(), pool.workers, pool._max_workers, decompression_workers(), verify_threads())
print(open_executor(None, QUIET).size, WorkerCapacity(None, "", containers=False).threads)
"""


def test_all_that_computes_in_parallel_keeps_to_the_quota_that_it_has_when_it_begins() -> None:
    """More threads than the quota has processors would be stopped by the kernel, each with its memory."""
    ran = subprocess.run([sys.executable, "-c", _COUNTS], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["3"] * 7
