"""The sandbox's own tests that measure the machine, as an ordinary user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.test_as_ordinary_user import check, code, documented, run
from tests.system.test_rootless import Person, handed_over, person

pytestmark = pytest.mark.alone

__all__ = ["code", "person"]  # fixtures

MODULES = ("test_life.py", "test_limits.py", "test_network.py", "test_volumes.py")
WITHOUT_GROUPS = tuple(name for name in MODULES if name != "test_network.py")
"""All but the one in which control groups play no part."""


def test_with_groups_handed_over(person: Person, code: Path) -> None:
    with handed_over(person):
        outcome = run(person, code, MODULES, "alone")
    check(outcome, person, MODULES, documented("always"))


def test_without_control_groups(person: Person, code: Path) -> None:
    outcome = run(person, code, WITHOUT_GROUPS, "alone")
    check(outcome, person, WITHOUT_GROUPS, documented("always", "without groups"))
