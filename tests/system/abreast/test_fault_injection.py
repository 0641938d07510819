"""A few of the faults that `ci/faults` injects at every call: enough to know that the harness sees and judges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.patience import HUNG
from tests.support.tiny_root import require_root
from tests.system.conftest import ROOT


def _inject(tmp_path: Path, *words: str) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the result by command and fault."""
    result = tmp_path / "result.tsv"
    command = [sys.executable, ROOT / "ci/faults.d/main.py", "--cache", tmp_path / "cache", "--result", result, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HUNG, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names, *lines = [line.split("\t") for line in result.read_text().splitlines()]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    return {(row["command"], row["fault"]): row for row in rows}


def test_a_few_faults_at_calls_by_chance_lose_nothing(tmp_path: Path) -> None:
    require_root()
    words = ["--fault", "kill", "--fault", "EIO", "--fault", "crash", "--sample", "2", "--seed", "10"]
    found = _inject(tmp_path, "--command", "lock", *words)
    assert set(found) == {("lock", fault) for fault in ("kill", "EIO", "crash")}
    for row in found.values():
        assert int(row["calls"]) > 20 and row["injected"] == "2" and row["losses"] == "0", found
        assert row["exit statuses"] and row["numbers"]
    assert found["lock", "kill"]["exit statuses"] == "-9:2"
