"""Settings that all tests share."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from tests.support.cpu_times import CpuTimes
from tests.support.examples import FAST, examples
from tests.support.fast_loop import left_for_ci
from tests.support.sampling import SEED
from tests.support.scheduling import FileScheduling

# No test asserts a time, the making of inputs on a busy machine included.
settings.register_profile("relbuild", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same inputs in each run: whether a change is taken does not depend on chance. Others look for new ones.
settings.register_profile("same", settings.get_profile("relbuild"), derandomize=True)
# While one works: a tenth of the inputs.
settings.register_profile("fast", settings.get_profile("relbuild"), max_examples=examples(100))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "relbuild"))

# Whoever starts the tests in the background of a script has them ignore SIGINT, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What is imported and collected stays to the end: no garbage is looked for in it, neither now nor later.
gc.disable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer to measure processor time."""
    parser.addoption("--cpu", type=Path, metavar="FILE", help="add the processor time of each test to a file")


def pytest_configure(config: pytest.Config) -> None:
    """Measure where that was asked for."""
    if config.getoption("--cpu"):
        config.pluginmanager.register(CpuTimes(config.rootpath / config.getoption("--cpu")))


def pytest_report_header() -> str:
    """Show what a run's samples are drawn from."""
    return f"samples are drawn by RELBUILD_SEED={SEED}; RELBUILD_SOAK=1 tries all (CONTRIBUTING.md)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the files that take longest begin, and unit tests fill the gaps at the end; draw what the loop tries."""
    if FAST:
        left = left_for_ci(items, config.args)
        config.hook.pytest_deselected(items=left)
        gone = {*left}
        items[:] = [item for item in items if item not in gone]
    items.sort(key=lambda item: 0 if item.get_closest_marker("long") else 1 if "system" in item.path.parts else 2)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling | None:
    """Give the files of `--dist loadfile` to the processes."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage again, now that everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.enable()
