"""The `stop` command: stop instances with their image's stop signal."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import ProgressStyle
from pipeline.errors import EnvironmentLacking, RelbuildError, join_errors
from pipeline.instances import STOP_LIMIT, InstanceFolder, find_instance, request_stop

_CLEARING_TIMEOUT = 30.0
"""Seconds that a supervisor gets to kill its instance and clear its sandbox, beyond the time to stop; it takes one."""


def _require_number(within: float | None) -> float | None:
    """Refuse `nan`, which is in every range."""
    if within is not None and math.isnan(within):
        raise typer.BadParameter("is not a number of seconds")
    return within


@command(rank=94, progress=ProgressStyle.NONE)
def stop_command(
    context: CommandContext,
    *,
    names: options.InstancesArgument,
    within: Annotated[
        float | None,
        typer.Option(
            "--within",
            "-t",
            min=0,
            max=STOP_LIMIT,
            callback=_require_number,
            help="Seconds until it is killed (default: the recipe's, else 10).",
        ),
    ] = None,
) -> int:
    """Stop instances.

    Each gets its image's stop signal, and is killed if it does not end in time.
    """
    root = context.open_store().instances
    folders = [find_instance(root, name) for name in dict.fromkeys(names)]
    stopping, refused = [], []
    for folder in folders:
        try:
            request_stop(folder, None if within is None else int(within * 1000))
        except RelbuildError as error:  # It does not run, or does not answer: the others are waited for.
            refused.append(error)
        else:
            stopping.append(folder)
    stopped = [(folder.name, _exit_code(folder, within)) for folder in stopping]
    for name, code in stopped:
        how = f" with exit code {code}" if code is not None else "; its exit code is unknown: its supervisor was killed"
        print_lines(f"{name} ended{how}")
    answer = {"stopped": [{"name": name, "exit_code": code} for name, code in stopped]}
    if refused:
        context.finished.update(answer)
        raise join_errors(refused)
    context.answer(answer)
    return 0


def _exit_code(folder: InstanceFolder, within: float | None) -> int | None:
    """Wait for the end of an instance that stops; return its exit code.

    None: its supervisor was killed.
    """
    record = folder.record()
    usual = record.stop_within / 1000 if record is not None else 0.0
    if not folder.wait_until_ended((usual if within is None else within) + _CLEARING_TIMEOUT):
        raise EnvironmentLacking(
            "instance-not-ended",
            f"'{folder.name}' has not ended",
            hint="`relbuild doctor` shows whether this machine is in order; `relbuild rm --force` tries again",
        )
    record = folder.record()
    return record.exit_code if record is not None else None
