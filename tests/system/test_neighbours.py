"""Twenty nginx, of which one does all that its limits leave it: do the others still answer?"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pipeline.build import BuildResult
from pipeline.launch import run_tests
from pipeline.prepare import BuildEnvironment
from pipeline.smoke import report_lines

pytestmark = pytest.mark.alone


def test_nineteen_nginx_do_not_notice_the_twentieth(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment
) -> None:
    nginx = built("nginx")
    assert nginx.report is not None and nginx.report.neighbours == ()
    tested = run_tests(
        nginx.image,
        nginx.locked.recipe.smoke,
        store=build_env.store,
        sandboxes=build_env.sandboxes(),
        progress=build_env.progress,
        clock=time.time,
        full=True,
    )
    assert not tested.reused, "a verdict without neighbours does not count for one with them"
    assert tested.report.passed, report_lines(tested.report)
    figures = {figures.misbehaviour: figures for figures in tested.report.neighbours}
    assert figures.keys() == {"spin", "allocate", "fork", "flood"}
    assert all(found.asked >= 19 and found.failed == 0 for found in figures.values())
