"""What a command builds counts as the work of the program that the command began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.build.remembered_build import BuildRequest
from pipeline.cli import build_run
from pipeline.cli.app import CommandContext
from pipeline.digest import Digest
from pipeline.progress import QUIET


class _Loaded(Exception):
    """The recipe would be loaded now."""


def test_recipes_and_builds_are_of_the_program_that_the_process_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command builds several requests one after the other; the program may be changed between them."""
    started: list[float] = []

    def load(*_: object, **more: Any) -> None:
        started.append(more["started"])
        raise _Loaded

    monkeypatch.setenv("RELBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(build_run, "load_documents", load)
    monkeypatch.setattr(build_run, "process_started", lambda now: now - 1000)
    request = BuildRequest(
        recipe=tmp_path / "a.yaml",
        repositories=tmp_path / "repositories.yaml",
        locks=None,
        output=tmp_path / "out",
        platform=None,
        architectures=(),
        mode="default",
        compression="gzip",
        smoke=False,
        full=False,
        offline=True,
        runtime=None,
    )
    context = CommandContext(QUIET)
    with pytest.raises(_Loaded):
        build_run.run_build(request, Digest.of(b""), context, retest=False, sources=False, archive=None)
    assert context.clock() - started[0] == pytest.approx(1000, abs=30)
