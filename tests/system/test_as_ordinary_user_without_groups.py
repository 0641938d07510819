"""The sandbox's own tests, as an ordinary user to whom no control groups were handed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.test_as_ordinary_user import MODULES, check, code, documented, run
from tests.system.test_rootless import Person, person

pytestmark = pytest.mark.brief

__all__ = ["code", "person"]  # fixtures

WITHOUT_GROUPS = tuple(name for name in MODULES if not name.startswith(("test_network.", "test_command_shell")))
"""All but the one in which control groups play no part, and those of what is done with them only."""


def test_without_control_groups(person: Person, code: Path) -> None:
    outcome = run(person, code, WITHOUT_GROUPS)
    check(outcome, person, WITHOUT_GROUPS, documented("always", "without groups"))
