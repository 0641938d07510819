"""The `prune` command: remove what a mirror's rules do not keep, or undo a pruning."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import bytes_text
from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_mirror_address
from pipeline.mirror.retention.pruning import PruningResult, UndoResult
from pipeline.release import prune, rules_for, undo_pruning

_SHOWN = 30
"""Pruned tags and manifests that a terminal shows."""


@command(
    rank=170,
    interrupted="what tags need is all there; the next pruning finishes what this one began. "
    "An interrupted --undo: run it again, and no pruning before",
)
def prune_command(
    context: CommandContext,
    *,
    mirror: Annotated[
        str, typer.Argument(help="The mirror: dir:PATH or registry://HOST/NAMESPACE.", show_default=False)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed, and its size.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; required without a terminal.")] = False,
    undo: Annotated[
        str | None,
        typer.Option("--undo", help="Restore what the pruning with this stamp, and later ones, removed."),
    ] = None,
    idle: Annotated[
        bool, typer.Option("--idle", help="No publication is in progress: also remove content of unknown age.")
    ] = False,
    access_log: Annotated[
        list[Path] | None,
        typer.Option("--access-log", help="An access log of the server, for `pulled-within` (repeatable; may be .gz)."),
    ] = None,
    rules: options.RulesOption,
) -> int:
    """Remove what the mirror's rules do not keep.

    It is shown first, and on a directory moved aside, not deleted.
    """
    if undo is not None and dry_run:
        raise UsageError(
            "options-contradict",
            "--undo and --dry-run contradict each other",
            hint="leave out --dry-run; `.quarantine/STAMP/list.json` of the mirror lists what comes back",
        )
    build_env, address = context.build_env(), parse_mirror_address(mirror, "prune")
    if undo is not None:
        undone = undo_pruning(address, undo, build_env)
        print_lines(*_undone_lines(undone))
        context.answer(undone.json())
        return 0
    wanted = rules_for(address, rules, signs=False)
    logs = access_log or ()
    done = prune(address, wanted, build_env, logs=logs, dry_run=True, idle=idle)
    print_lines(*_lines(done))
    if not dry_run and not done.plan.empty and _confirmed(yes):
        done = prune(address, wanted, build_env, logs=logs, idle=idle)
        print_lines(*_lines(done))
    context.answer(done.json())
    return 0


def _confirmed(yes: bool) -> bool:
    if yes:
        return True
    if sys.stdin.isatty():
        try:
            return typer.confirm("remove these?", err=True)
        except typer.Abort as ended:
            if not isinstance(ended.__context__, EOFError):  # Ctrl-C ends the command.
                raise
    print_lines("nothing was removed; use --yes to remove")
    return False


def _lines(done: PruningResult) -> Iterator[str]:
    plan = done.plan
    yield from (f"note: {note}" for note in plan.notes)
    if plan.empty:
        yield f"{done.mirror}: nothing to remove" + (f"; {len(plan.spared)} too young" if plan.spared else "")
        return
    if done.dry_run:
        for one in (*plan.tags, *plan.manifests)[:_SHOWN]:
            yield f"  {one}"
        more = len(plan.tags) + len(plan.manifests) - _SHOWN
        if more > 0:
            yield f"  … and {more} more (--json has all)"
    yield (
        f"{done.mirror}: {len(plan.tags)} tags, {len(plan.manifests)} manifests and {len(plan.blobs)} blobs "
        f"{'would be removed' if done.dry_run else 'removed'}, {bytes_text(done.size)}"
        + (f"; {len(plan.spared)} too young" if plan.spared else "")
    )
    yield from (f"  cannot be removed here: {one}" for one in done.refused)
    if done.stamp:
        yield f"  in quarantine: `relbuild prune {done.mirror} --undo {done.stamp}` restores it"
    if done.size_after:
        yield f"  the registry's garbage collection frees {bytes_text(done.size_after)} of it:"
        yield from (f"    {line}" for line in done.instructions)


def _undone_lines(done: UndoResult) -> tuple[str, ...]:
    return (
        f"{done.mirror}: {len(done.tags)} tags, {done.manifests} manifests and {done.blobs} blobs restored "
        f"(from {', '.join(done.stamps)})",
        *(f"  left unchanged: {repository}:{tag}" for repository, tag in done.left),
    )
