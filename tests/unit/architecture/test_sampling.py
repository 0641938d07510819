"""What long tests try of their steps: with every seed some, with all seeds all, and all at once where there is time."""

from __future__ import annotations

import re
from typing import cast

import pytest

from tests.support import fast_loop, sampling
from tests.support.source import ROOT

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


class _Item:
    """A collected test, as far as the loop looks at it."""

    def __init__(self, nodeid: str, *, costly: bool = False) -> None:
        self.nodeid = nodeid
        self.costly = costly

    def get_closest_marker(self, name: str) -> object:
        return self if self.costly and name == "costly" else None


def test_the_loop_tries_some_parameters_of_each_test_and_over_time_all(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [_Item(f"a.py::test_many[{number}]") for number in range(30)]
    costly = [_Item(f"a.py::test_costly[{number}]", costly=True) for number in range(3)]
    few = [_Item("a.py::test_one"), *(_Item(f"a.py::test_few[{number}]") for number in range(fast_loop.PARAMETERS))]
    items = cast("list[pytest.Item]", [*many, *few, *costly])
    seen: set[pytest.Item] = set()
    for seed in range(100):
        monkeypatch.setattr(sampling, "SEED", seed)
        left = fast_loop.left_for_ci(items, ["tests/unit"])
        tried = {*items} - {*left}
        assert len(tried) == fast_loop.PARAMETERS + len(few) + 1 and tried >= {*cast("list[pytest.Item]", few)}
        assert left == fast_loop.left_for_ci(items, ["tests/unit"]), "each process of a run leaves the same"
        seen |= tried
    assert seen == {*items}
    asked = ["x/a.py::test_many[3]", "x/a.py::test_costly"]
    assert fast_loop.left_for_ci(items, asked) == []


def test_no_property_test_measures_the_making_of_its_inputs() -> None:
    """Checks of health that a test leaves out replace those that all leave out (tests/conftest.py)."""
    texts = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    lists = [(path, one) for path in texts for one in re.findall(r"suppress_health_check=([l\[][^)]*)", texts[path])]
    assert len(lists) > 5
    assert [path for path, one in lists if "too_slow" not in one and "list(HealthCheck" not in one] == []
