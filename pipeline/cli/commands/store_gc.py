"""The `store gc` command."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import Surroundings, command
from pipeline.cli.messages import say
from pipeline.cli.progress_display import size_text
from pipeline.gather import locked_packages
from pipeline.store import collect


@command(rank=20, in_a_namespace=True, progress=None)
def store_gc_command(
    around: Surroundings,
    *,
    older_than: Annotated[int, typer.Option("--older-than", min=0, help="Days since the last use.")] = 30,
    locks: Annotated[Path, typer.Option("--locks", help="Packages named by locks below here are kept.")] = Path(),
) -> int:
    """Remove what was not used for some days.

    Packages that a lock names are kept: a repository may have dropped them.
    """
    store = around.open_store()
    keep = locked_packages(locks)
    done = collect(store, around.clock() - older_than * 86400, keep)
    around.answer({"freed": done.freed, "kept_packages": len(keep), "spared_since": done.spared_since})
    if not around.as_json:
        say(f"freed {size_text(sum(done.freed.values()))}; {len(keep)} packages are kept for locks below {locks}")
        if done.spared_since is not None:
            when = datetime.fromtimestamp(done.spared_since, UTC)
            say(f"another relbuild uses the store: what was used since {when:%Y-%m-%d %H:%M} UTC was left")
    return 0
