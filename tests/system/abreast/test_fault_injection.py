"""A few of the faults that `ci/faults` injects at every call: enough to know that the harness sees and judges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.system.conftest import ROOT
from tests.system.tiny import require_root

_SECONDS = 300


def _inject(tmp_path: Path, *words: str) -> dict[tuple[str, str], list[str]]:
    """The lines of the result by command and fault."""
    result = tmp_path / "result.tsv"
    command = [sys.executable, ROOT / "ci/faults.d/main.py", "--cache", tmp_path / "cache", "--result", result, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("\t") for line in result.read_text().splitlines()[1:]]
    return {(line[0], line[1]): line[2:] for line in lines}


def test_a_few_faults_at_calls_by_chance_lose_nothing(tmp_path: Path) -> None:
    require_root()
    words = ["--fault", "kill", "--fault", "EIO", "--fault", "crash", "--sample", "2", "--seed", "10"]
    found = _inject(tmp_path, "--command", "lock", *words)
    assert set(found) == {("lock", fault) for fault in ("kill", "EIO", "crash")}
    for _, calls, runs, _, losses, statuses, _ in found.values():
        assert int(calls) > 20 and (int(runs), int(losses)) == (2, 0), found
        assert statuses
    assert found["lock", "kill"][-2] == "-9:2"
