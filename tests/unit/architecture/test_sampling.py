"""What long tests try of their steps: with every seed some, with all seeds all, and all at once where there is time."""

from __future__ import annotations

import pytest

from tests.support import sampling

EVERY = 7


def tried(last: int) -> set[int]:
    """The steps that a test with so many tries."""
    return set(range(sampling.first_step("a test", EVERY), last + 1, sampling.stride(EVERY)))


def test_a_run_tries_every_so_many_steps_and_runs_together_try_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SOAK", 0)
    together: set[int] = set()
    for seed in range(200):
        monkeypatch.setattr(sampling, "SEED", seed)
        found = tried(50)
        assert 50 // EVERY <= len(found) <= 50 // EVERY + 1
        assert found == tried(50), "the same seed tries the same"
        together |= found
    assert together == set(range(1, 51))


def test_where_there_is_time_every_step_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SOAK", 1)
    assert tried(50) == set(range(1, 51))
