"""The sandbox's own tests, as an ordinary user to whom control groups were handed over: none fails, and what is
unenforced is what docs/sandbox.md lists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.patience import HUNG
from tests.system.test_rootless import ROOT, Person, handed_over, person

pytestmark = pytest.mark.brief

__all__ = ["person"]  # a fixture

MODULES = (
    "test_probes.py", "test_life.py", "test_build_session.py", "test_command_shell.py",
    "test_command_shell_input.py", "test_instance.py", "test_leftovers.py", "test_network.py", "test_volumes.py",
)  # fmt: skip
"""Those of their tests that measure the machine: test_measured_as_ordinary_user.py."""


@dataclass(frozen=True)
class Outcome:
    passed: list[str]
    failed: list[str]
    skipped: dict[str, str]
    deselected: list[str]
    text: str


@pytest.fixture(scope="module")
def code(person: Person) -> Path:
    """The tests beside the user's copy of relbuild."""
    folder = person.folder / "code"
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder


def run(person: Person, code: Path, modules: tuple[str, ...], marked: str = "not alone") -> Outcome:
    files = [f"tests/system/{name}" for name in modules]
    running = person.start(code / "tests/support/ordinary_drive.py", person.folder / "home", "-m", marked, *files)
    try:
        out, err = running.communicate(timeout=HUNG)
    finally:
        running.kill()
    assert out, err
    said = json.loads(out)
    assert said["status"] == 0 or said["failed"], err
    return Outcome(said["passed"], said["failed"], said["skipped"], said["deselected"], err)


def documented(*groups: str) -> dict[str, str]:
    """Tests that end with something unenforced, and what: from the table in docs/sandbox.md."""
    text = (ROOT / "docs" / "sandbox.md").read_text()
    table = text.partition("<!-- unenforced -->")[2].partition("<!-- /unenforced -->")[0]
    rows = re.findall(r"^\| `(.+)` \| (.+) \| (.+) \|$", table, re.MULTILINE)
    return {test: what for test, what, when in rows if when in groups}


def unenforced(outcome: Outcome) -> dict[str, str]:
    return {test: why.removeprefix("unenforced for an ordinary user: ") for test, why in outcome.skipped.items()}


def check(outcome: Outcome, person: Person, modules: tuple[str, ...], expected: dict[str, str]) -> None:
    assert outcome.failed == [], outcome.text
    assert {test.partition("::")[0] for test in (*outcome.passed, *outcome.skipped)} == set(modules)
    assert unenforced(outcome) == {
        test: what for test, what in expected.items() if test.startswith(modules) and test not in outcome.deselected
    }
    assert person.processes() == []


def test_with_groups_handed_over(person: Person, code: Path) -> None:
    with handed_over(person):
        outcome = run(person, code, MODULES)
    check(outcome, person, MODULES, documented("always"))
