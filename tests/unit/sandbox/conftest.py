"""Fixtures of the tests of the sandbox."""

from __future__ import annotations

import resource

import pytest


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without limits of its own, where the owner of a pipe can be changed."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1, resource.RLIM_INFINITY))
    monkeypatch.setattr("os.fchown", lambda *_: None)  # Without root, pipes stay their maker's.
