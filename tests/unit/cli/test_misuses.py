"""Misuses: those that cost little are tried here, and what is recorded of all of them is what the page shows."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.sites import relbuild_at_once
from tests.support.source import ROOT

_SPEC = importlib.util.spec_from_file_location("misuses_run", ROOT / "ci/misuses.d/run.py")
assert _SPEC is not None and _SPEC.loader is not None
misuses: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(misuses)
CASES = misuses.read_cases()
CHEAP = [case for case in CASES if case.get("cheap")]


@pytest.mark.parametrize("case", CHEAP, ids=[case["name"] for case in CHEAP])
def test_a_misuse_is_answered_with_its_place_the_way_out_and_its_exit_code(
    case: dict[str, Any], tmp_path: Path
) -> None:
    misuses.prepare(case, ROOT, tmp_path)
    with contextlib.chdir(tmp_path):
        done = relbuild_at_once(tmp_path, *shlex.split(case["run"]), "--progress", "none")
    assert done.returncode == case["exit"], done.stderr
    assert "Traceback" not in done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith(f"error[{case.get('code', '')}") and ".yaml" in first
    assert case.get("place", "") in first and second.startswith("  → ")


def test_each_case_is_recorded_and_came_out_as_it_should() -> None:
    before, now = misuses.load("before"), misuses.load("now")
    assert len(CASES) >= 60 and len({case["name"] for case in CASES}) == len(CASES)
    for case in CASES:
        assert case["name"] in before, f"ci/misuses --before COMMIT {case['name']}"
        found = now[case["name"]]
        said = "\n".join(found["said"])
        assert found["exit"] == case.get("exit", found["exit"]), case["name"]
        assert found["exit"] is not None and "Traceback" not in said, case["name"]
        assert f"[{case.get('code', '')}" in said or case["exit"] in (0, 130) or "Error: " in said, case["name"]


def test_the_page_shows_what_is_recorded() -> None:
    page = misuses.page(CASES, misuses.load("before"), misuses.load("now"))
    assert (ROOT / "docs/misuses.md").read_text() == page, "ci/misuses writes it"
