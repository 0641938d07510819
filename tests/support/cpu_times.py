"""The processor time that each test takes, which no other load of the machine changes much: `--cpu FILE`."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest


class CpuTimes:
    """Write a line for each test: seconds of this process and of children that were waited for, and the test."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measure a test with what is set up for it and torn down after it."""
        before = os.times()
        result = yield
        after = os.times()
        own = after.user + after.system - before.user - before.system
        children = after.children_user + after.children_system - before.children_user - before.children_system
        self.lines.append(f"{own + children:.2f}\t{own:.2f}\t{children:.2f}\t{item.nodeid}\n")
        return result

    def pytest_sessionfinish(self) -> None:
        """Add to the file, to which each of several processes adds its own."""
        with self.file.open("a") as file:
            file.writelines(self.lines)
