"""What a build uses later is loaded while it waits, and no longer."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from pipeline.build import early_imports
from pipeline.build.early_imports import USED_LATER, import_early
from pipeline.oci import licences


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is loaded, which is not."""
    done: list[str] = []
    monkeypatch.setattr(early_imports.importlib, "import_module", done.append)
    monkeypatch.setattr(early_imports, "start_renderer", lambda: done.append("renderer"))
    monkeypatch.setattr(licences, "load_licence_list", lambda: done.append("licences"))
    return done


def test_all_is_loaded_in_the_order_in_which_it_is_used(steps: list[str]) -> None:
    import_early(lambda: True)
    assert steps == [*USED_LATER, "renderer", "licences"]


@pytest.mark.parametrize("count", [0, 1, len(USED_LATER), len(USED_LATER) + 1])
def test_nothing_is_loaded_once_there_is_an_answer(steps: list[str], count: int) -> None:
    left = [True] * count
    import_early(lambda: bool(left) and left.pop())
    assert steps == [*USED_LATER, "renderer", "licences"][:count]


def test_what_cannot_be_loaded_is_told_where_it_is_used(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        steps.append(name)
        raise OSError(f"no library for {name}")

    monkeypatch.setattr(early_imports.importlib, "import_module", refuse)
    import_early(lambda: True)
    assert steps == [*USED_LATER, "renderer", "licences"]


@pytest.mark.parametrize("name", USED_LATER)
def test_each_can_be_loaded(name: str) -> None:
    assert importlib.import_module(name).__name__ == name
