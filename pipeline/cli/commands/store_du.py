"""The `store du` command: show the disk usage of the store by kind of content."""

from __future__ import annotations

from pipeline.cli.app import CommandContext, command
from pipeline.cli.progress_display import bytes_text
from pipeline.store import store_usage


@command(rank=10, in_user_namespace=True, progress=None)
def store_du_command(context: CommandContext) -> int:
    """Say what the store holds and how much of the disk it takes."""
    held = store_usage(context.open_store())
    context.show((f"{bytes_text(count):>10}  {name}" for name, count in sorted(held.items())), held)
    return 0
