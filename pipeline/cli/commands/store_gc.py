"""The `store gc` command: remove content that was not used for some days."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import ProgressStyle, bytes_text
from pipeline.prepare import locked_packages
from pipeline.store import collect_garbage


@command(
    rank=20,
    in_user_namespace=True,
    progress=ProgressStyle.NONE,
    interrupted="nothing that is in use was removed; run it again to remove the rest",
)
def store_gc_command(
    context: CommandContext,
    *,
    older_than: Annotated[int, typer.Option("--older-than", min=0, help="Days since the last use.")] = 30,
    locks: Annotated[Path, typer.Option("--locks", help="Keep packages listed in locks below this folder.")] = Path(),
) -> int:
    """Remove what was not used for some days.

    Packages that a lock names are kept: a repository may have dropped them.
    """
    store = context.open_store()
    keep = locked_packages(locks)
    done = collect_garbage(store, context.clock() - older_than * 86400, keep)
    context.answer({"freed": done.freed, "kept_packages": len(keep), "spared_since": done.spared_since})
    if not context.as_json:
        print_lines(
            f"freed {bytes_text(sum(done.freed.values()))}; {len(keep)} packages are kept for locks below {locks}"
        )
        if done.spared_since is not None:
            when = datetime.fromtimestamp(done.spared_since, UTC)
            print_lines(
                f"another relbuild process uses the store: content used since {when:%Y-%m-%d %H:%M} UTC was kept"
            )
    return 0
