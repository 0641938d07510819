"""What test_as_ordinary_user.py runs as an ordinary user: pytest in that user's namespace, on the sandbox's own tests.
argv is a folder for what tests write, and pytest's arguments. Prints one JSON object; what pytest says goes to
stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.sandbox import rootless

SAID: dict[str, list[str]] = {"passed": [], "failed": []}
SKIPPED: dict[str, str] = {}
DESELECTED: list[str] = []


class Outcomes:
    """Collects how each test ended, and which were not to be run."""

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        DESELECTED.extend(item.nodeid.removeprefix("tests/system/") for item in items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/system/")
        if report.failed:
            SAID["failed"].append(f"{name} ({report.when})")
        elif report.skipped:
            assert isinstance(report.longrepr, tuple)
            SKIPPED[name] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.when == "call":
            SAID["passed"].append(name)


rootless.enter_user_namespace()
os.environ["TMPDIR"] = sys.argv[1]
os.chdir(Path(__file__).parents[2])
with contextlib.redirect_stdout(sys.stderr):
    status = pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *sys.argv[2:]], plugins=[Outcomes()])
print(json.dumps({"status": int(status), **SAID, "skipped": SKIPPED, "deselected": DESELECTED}))
