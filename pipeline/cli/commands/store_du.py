"""The `store du` command: show the disk usage of the store by kind of content."""

from __future__ import annotations

from pipeline.cli.app import CommandContext, command
from pipeline.cli.progress_display import ProgressStyle, bytes_text
from pipeline.store import store_usage


@command(rank=10, in_user_namespace=True, progress=ProgressStyle.NONE)
def store_du_command(context: CommandContext) -> int:
    """Say what the store holds and how much of the disk it takes."""
    store = context.open_store()
    held = store_usage(store)
    lines = [(count, name) for name, count in sorted(held.items())]
    lines.append((sum(held.values()), f"in all, in {store.root}"))
    context.show((f"{bytes_text(count):>10}  {text}" for count, text in lines), {**held, "total": sum(held.values())})
    return 0
