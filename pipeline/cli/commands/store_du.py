"""The `store du` command."""

from __future__ import annotations

from pipeline.cli.app import Surroundings, command
from pipeline.cli.progress_display import size_text
from pipeline.store import usage


@command(rank=10, in_a_namespace=True, progress=None)
def store_du_command(around: Surroundings) -> int:
    """Say what the store holds and how much of the disk it takes."""
    held = usage(around.open_store())
    around.show((f"{size_text(count):>10}  {name}" for name, count in sorted(held.items())), held)
    return 0
