"""How often a directory without a limit of its own is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sandbox import disk_quota
from pipeline.sandbox.disk_quota import DiskQuota


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(disk_quota.time, "monotonic", lambda: now[0])
    return now


def written(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes(b"x" * size)


def test_it_is_looked_at_the_more_often_the_sooner_it_could_be_full(tmp_path: Path, clock: list[float]) -> None:
    watched = DiskQuota(tmp_path, limit=10 << 20, hard=False)
    assert watched.pause == 0.05, "nothing is known yet"
    for name, size, pause in (
        ("", 0, 0.1),
        ("", 0, 0.2),  # No more than twice as long as before.
        ("", 0, 0.4),
        ("", 0, 0.8),
        ("", 0, 1.0),
        ("a", 2 << 20, 0.4),  # 8 MiB are left, at 2 MiB in a second.
        ("b", 1 << 20, 0.7),
        ("c", 6 << 20, 0.05),
        ("", 0, 0.1),
    ):
        clock[0] += 1
        if name:
            written(tmp_path, name, size)
        assert not watched.full()
        assert watched.pause == pytest.approx(pause)
    written(tmp_path, "d", 2 << 20)
    assert watched.full()


def test_looking_takes_a_tenth_of_the_time_unless_that_were_too_seldom(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = DiskQuota(tmp_path, limit=100 << 20, hard=False)
    grown = [0]

    def count(took: float) -> float:
        def slowly(_: DiskQuota) -> int:
            clock[0] += took
            grown[0] += 30 << 20
            return grown[0]

        monkeypatch.setattr(DiskQuota, "_count", slowly)
        watched.full()
        return watched.pause

    assert count(0.02) == pytest.approx(0.2)
    assert count(0.5) == 1.0
