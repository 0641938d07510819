"""Processes of this machine that do a night's tasks."""

from __future__ import annotations

from pipeline.nightly.crew import LocalCrew, Needs
from pipeline.progress import QUIET
from tests.unit import interrupted


def test_the_terminals_ctrl_c_is_for_the_process_that_gave_the_task() -> None:
    """A worker that took it too would end with a traceback of its own beside the one line."""
    crew = LocalCrew(QUIET, 1)
    try:
        crew.start("one", interrupted.survive, "alive", Needs("x86_64"))
        ended = crew.next_ended()
    finally:
        crew.close()
    assert (ended.lost, ended.result) == ("", "alive False True")
