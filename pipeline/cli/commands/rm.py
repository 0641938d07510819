"""The `rm` command: remove instances with their logs and changed configuration."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import ProgressStyle
from pipeline.errors import Problem, UsageError
from pipeline.instances import InstanceFolder, find_instance, request_stop

_KILL_TIMEOUT = 30.0
"""Seconds that a killed instance gets to end; it takes less than one."""


@command(rank=95, progress=ProgressStyle.NONE)
def rm_command(
    context: CommandContext,
    *,
    names: options.InstancesArgument,
    force: Annotated[bool, typer.Option("--force", "-f", help="Kill those that run.")] = False,
) -> int:
    """Remove instances that have ended.

    Their logs and their changed configuration files are removed, too.
    """
    root = context.open_store().instances
    folders = [find_instance(root, name) for name in dict.fromkeys(names)]
    if force:
        for folder in folders:
            _kill(folder)
    removed = [(folder.name, folder.remove()) for folder in folders]
    for name in (name for name, done in removed if done):
        print_lines(f"removed {name}")
    running = [name for name, done in removed if not done]
    answer = {"removed": [name for name, done in removed if done]}
    if running:
        context.finished.update(answer)
        raise UsageError.of(
            [
                Problem(
                    "instance-running",
                    f"the instance '{name}' runs",
                    hint=f"`relbuild stop {name}` first, or --force",
                )
                for name in running
            ]
        )
    context.answer(answer)
    return 0


def _kill(folder: InstanceFolder) -> None:
    """Kill a running instance, and wait until its supervisor has cleared it."""
    if folder.supervised():
        with contextlib.suppress(UsageError):  # It has ended meanwhile, or is about to.
            request_stop(folder, 0)
        folder.wait_until_ended(_KILL_TIMEOUT)
