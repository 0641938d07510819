"""The limits that a command of a build session met, with a runtime and a control group of the test's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.model.usage import Usage
from pipeline.sandbox import build_container
from pipeline.sandbox.build_container import BuildLimits, BuildSession, CommandResult

RUNTIME = """#!/bin/sh
while [ $# -gt 0 ]; do
  if [ "$1" = --pid-file ]; then echo $$ >"$2"; fi
  shift
done
exit {status}
"""
"""A runtime that says that it has started the command, and ends as the command would."""

NOTHING = Usage(0, 0, 0, 0, 0, 0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandResult]:
    """Run a command that ends with a status, in a group with a usage, on a disk that is full or not."""
    monkeypatch.setattr(build_container, "write_bundle", lambda *_: None)
    monkeypatch.setattr(build_container, "resources_of", lambda *_, **__: {})

    def act(status: int, *, usage: Usage = NOTHING, full: bool = False) -> CommandResult:
        runtime = tmp_path / "runtime-program"
        runtime.write_text(RUNTIME.format(status=status))
        group = SimpleNamespace(path="", usage=lambda: usage, kill=lambda: None, remove=lambda: None)
        slot: Any = SimpleNamespace(
            folder=tmp_path, base=os.getuid(), name="slot", group=SimpleNamespace(below=lambda _: group)
        )
        runtime_of = SimpleNamespace(command=["/bin/sh", runtime], keeps_ended=False, stays_in_group=False)
        sandboxes: Any = SimpleNamespace(runtime=runtime_of, hierarchies=None)
        files: Any = SimpleNamespace(require_mount_point=lambda _: None, require_working_directory=lambda _: None)
        mntns: Any = SimpleNamespace(call=lambda act, *args, **options: act(*args, **options))
        overlay: Any = SimpleNamespace(path=tmp_path)
        quota: Any = SimpleNamespace(pause=60.0, full=lambda: full)
        with contextlib.ExitStack() as closing:
            session = BuildSession(sandboxes, slot, BuildLimits(), files, mntns, overlay, quota, 0, [], closing)
            return session.run(["/bin/true"])

    return act


def test_a_command_that_met_no_limit_is_ok_at_status_0(run: Callable[..., CommandResult]) -> None:
    ended, failed = run(0), run(7)
    assert ended.ok and not (ended.out_of_memory or ended.out_of_disk or ended.pids_refused)
    assert failed.status == 7 and not failed.ok and not failed.too_large


def test_a_full_disk_is_seen_whatever_the_status(run: Callable[..., CommandResult]) -> None:
    for status in (0, 1):
        ended = run(status, full=True)
        assert ended.status == status and ended.out_of_disk and not ended.ok


def test_a_process_that_was_killed_for_memory_is_seen_whatever_the_status(run: Callable[..., CommandResult]) -> None:
    ended = run(0, usage=replace(NOTHING, oom_kills=1))
    assert ended.status == 0 and ended.out_of_memory and not ended.ok


def test_refused_processes_are_told_and_the_status_decides(run: Callable[..., CommandResult]) -> None:
    refused = replace(NOTHING, pids_refused=3)
    assert run(0, usage=refused).ok and run(0, usage=refused).pids_refused
    assert run(1, usage=refused).pids_refused and not run(1, usage=refused).ok
    assert not run(1, usage=replace(NOTHING, pids_refused=None)).pids_refused, "a kernel that does not count them"


def test_a_file_beyond_its_limit_is_told_by_the_signal(run: Callable[..., CommandResult]) -> None:
    assert run(153).too_large and not run(153).ok
