"""The `logs` command: print what an instance has printed, and follow it."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.log_follower import Follower
from pipeline.cli.standard_streams import require_reader
from pipeline.instances import find_instance, read_log


@command(rank=92, json=False, progress=None)
def logs_command(
    context: CommandContext,
    *,
    name: options.InstanceArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends, or Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only so many lines of the end.")] = None,
) -> int:
    """Print the log of an instance.

    It holds the last 8 to 16 MiB of what the instance printed.
    """
    folder = find_instance(context.open_store().instances, name)

    def running() -> bool:
        require_reader()
        return folder.supervised()

    with contextlib.closing(Follower(labelled=False)) as writer:
        for piece in read_log(folder.path, tail=tail, follow=follow, running=running):
            writer(name, piece)
    return 0
