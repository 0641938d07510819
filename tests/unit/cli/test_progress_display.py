"""Styles of progress: what each shows."""

from __future__ import annotations

import pytest

from pipeline.cli.progress_display import ProgressStyle, open_progress
from pipeline.progress import task


def test_who_wants_no_progress_is_warned_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    shown = open_progress(ProgressStyle.NONE)
    with task(shown, "layer", "base") as running:
        running.advance(1)
        shown.warn("the layer 'docs' is empty")
    assert capsys.readouterr().err == " warning  the layer 'docs' is empty\n"
