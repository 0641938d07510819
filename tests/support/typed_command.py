"""A command line as a person types it, run in this process."""

from __future__ import annotations

import pytest

from pipeline.cli.main import run_command_line


def run_typed(words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `relbuild WORDS` and return its exit status."""
    monkeypatch.setattr("sys.argv", ["relbuild", *words.split()])
    with pytest.raises(SystemExit) as ended:
        run_command_line()
    assert isinstance(ended.value.code, int)
    return ended.value.code
