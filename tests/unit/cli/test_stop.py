"""`stop` and `rm` of instances: the time that they get, and what is told of each."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.cli.commands import import_commands
from pipeline.instances.control_server import serve_control
from pipeline.sandbox import Instance
from pipeline.store import Store


@pytest.mark.parametrize("within", ["inf", "nan", "-1", "3000000"])
def test_a_time_that_is_no_number_of_seconds_up_to_a_day_is_refused(within: str, tmp_path: Path) -> None:
    import_commands("stop")
    done = CliRunner().invoke(app, ["stop", "x", "--store", str(tmp_path), "-t", within])
    assert done.exit_code == 2
    assert "--within" in done.output


def test_what_runs_is_stopped_and_told_beside_what_does_not(tmp_path: Path) -> None:
    """It was told to stop, and neither waited for nor named, or was left running, by the order of the names."""
    folders = [Store.open(tmp_path).instances / name for name in ("ended", "runs")]
    for folder in folders:
        folder.mkdir(parents=True)
    stops: list[int | None] = []
    import_commands("stop")
    with serve_control(folders[1], cast(Instance, None), stops.append):
        for names in (["ended", "runs"], ["runs", "ended", "runs"]):
            done = CliRunner().invoke(app, ["stop", *names, "--json", "--store", str(tmp_path)])
            answer = json.loads(done.stdout)
            assert done.exit_code == 2 and "error[instance-ended] the instance 'ended' does not run" in done.stderr
            assert answer["stopped"] == [{"name": "runs", "exit_code": None}]
            assert [one["code"] for one in answer["error"]] == ["instance-ended"]
    assert stops == [None, None]


def test_what_is_removed_is_told_beside_what_runs(tmp_path: Path) -> None:
    root = Store.open(tmp_path).instances
    for name in ("ended", "runs"):
        (root / name).mkdir(parents=True)
    import_commands("rm")
    handle = os.open(root / "runs", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        done = CliRunner().invoke(app, ["rm", "ended", "ended", "runs", "--json", "--store", str(tmp_path)])
    finally:
        os.close(handle)
    answer = json.loads(done.stdout)
    assert done.exit_code == 2 and answer["removed"] == ["ended"]
    assert [one["code"] for one in answer["error"]] == ["instance-running"]
