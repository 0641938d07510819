"""Repeat the answer of a build of which nothing has changed; remember other builds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.build.remembered_build import (
    TOOK,
    BuildRequest,
    RememberedBuild,
    recall_build,
    remember_build,
    request_name,
    settle_reports,
)
from pipeline.cli.messages import print_lines
from pipeline.digest import Digest
from pipeline.progress import Progress, Task, task, undrawn

if TYPE_CHECKING:
    from pipeline.beneath import ReadLog
    from pipeline.build import BuildResult
    from pipeline.cli.app import CommandContext
    from pipeline.prepare import BuildEnvironment, BuildOptions
    from pipeline.store import Store


class WarningLog:
    """Progress that passes everything on, and keeps the warnings."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self.warnings: list[str] = []

    def start(self, stage: str, label: str, *, total: int | None = None, unit: str = "items") -> Task:
        """As `Progress.start`."""
        return self._shown.start(stage, label, total=total, unit=unit)

    def finish(self, task: Task, *, failed: bool = False) -> None:
        """As `Progress.finish`."""
        self._shown.finish(task, failed=failed)

    def warn(self, text: str) -> None:
        """As `Progress.warn`."""
        self.warnings.append(text)
        self._shown.warn(text)

    def undrawn(self) -> contextlib.AbstractContextManager[None]:
        """As `pipeline.progress.undrawn`."""
        return undrawn(self._shown)


def name_of_build(request: BuildRequest, context: CommandContext, store: Store) -> Digest | None:
    """Return the name under which a build is remembered, None where this process cannot tell it."""
    with contextlib.suppress(OSError):
        return request_name(request, store, context.environment)
    return None


def repeat_build(name: Digest, request: BuildRequest, context: CommandContext, store: Store) -> RememberedBuild | None:
    """Tell what an unchanged build said, and return it; None if the build must be done."""
    began = context.clock()
    known = recall_build(store, name, began)
    if known is None:
        return None
    if known.fresh:
        known = settle_reports(store, name, known, lambda: context.clock() - began)
        if known is None:
            return None
    with task(context.progress, "compare", request.recipe.stem) as running:
        running.note(f"{known.compared} files, none changed")
    for text in known.warnings:
        context.progress.warn(text)
    took = context.clock() - began
    print_lines(*known.told(verbose=context.verbose, took=took))
    return known.after(took)


def remember_result(
    name: Digest,
    built: BuildResult,
    options: BuildOptions,
    build_env: BuildEnvironment,
    *,
    log: ReadLog,
    warnings: Sequence[str],
    started: float,
) -> None:
    """Remember a build that was done, unless its files do not tell that the next is the same."""
    from pipeline.build.build_snapshot import repeated_warnings, take_build_snapshot, unchanged_result
    from pipeline.cli.build_format import build_lines, result_json

    repeated = repeated_warnings(built, warnings)
    snapshot = take_build_snapshot(built, options, build_env, log, started=started)
    if repeated is None or snapshot is None:
        return
    again = unchanged_result(built)
    lines, all_lines = (tuple(build_lines(again, verbose=verbose, took=TOOK)) for verbose in (False, True))
    said = snapshot.saying(warnings=repeated, lines=lines, all_lines=all_lines, answer=result_json(again))
    remember_build(build_env.store, name, said)
