"""The time that `stop` gives an instance."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands


@pytest.mark.parametrize("within", ["inf", "nan", "-1", "3000000"])
def test_a_time_that_is_no_number_of_seconds_up_to_a_day_is_refused(within: str, tmp_path: Path) -> None:
    import_commands("stop")
    done = CliRunner().invoke(app, ["stop", "x", "--store", str(tmp_path), "-t", within])
    assert done.exit_code == 2
    assert "--within" in done.output
