"""Fixtures of the tests of recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.recipe_documents import LOADING, RecipeDocuments


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecipeDocuments:
    """Return a recipe with all that is read for it, and a store."""
    monkeypatch.setattr(LOADING, "START", -3600.0)  # The tests of a checkout run while somebody edits it.
    return RecipeDocuments(tmp_path, monkeypatch)
