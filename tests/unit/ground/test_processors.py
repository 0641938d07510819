"""How many processors may be used: by affinity, and by the quotas of control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import processors
from pipeline.processors import usable_processors

_HYBRID = "3:cpuset:/\n1:cpu,cpuacct:/a/b\n0::/\n"


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
