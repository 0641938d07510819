"""The `lock` command."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.build import lock
from pipeline.cli import options
from pipeline.cli.app import Surroundings, command
from pipeline.cli.image_format import parent_as_json
from pipeline.cli.messages import say
from pipeline.cli.recipe_argument import order
from pipeline.gather import Locked
from pipeline.resolve import Mode


@command(rank=20, reads_repositories=True)
def lock_command(
    around: Surroundings,
    *,
    recipe: options.RecipeArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if the lock is missing or stale.")
    ] = False,
    upgrade: options.UpgradeOption,
    platform: options.PlatformOption,
    arch: options.ArchOption,
    repositories: options.RepositoriesOption,
    offline: options.OfflineOption,
) -> int:
    """Resolve only, write the lock, and show what changed."""
    mode = Mode.LOCKED if check else Mode.UPGRADE if upgrade else Mode.DEFAULT
    wanted = order(recipe, platform, arch, repositories, mode=mode, smoke=False)
    locked = lock(wanted, around.workshop(offline=offline))
    say(*locked_as_lines(locked))
    around.answer(_json(locked))
    return 0


def locked_as_lines(locked: Locked) -> tuple[str, ...]:
    """Format the result of `relbuild lock` as lines for people."""
    count = str(len(locked.section.resolution.chosen))
    if locked.parent is not None:
        count = f"besides the {len(locked.parent.packages)} of the parent image '{locked.parent.name}', {count}"
    if not locked.wrote:
        return (f"{locked.path} is fresh: {count} packages",)
    return (
        f"wrote {locked.path}: {count} packages ({'; '.join(locked.why) or 'account numbers'})",
        *locked.changes,
    )


def _json(locked: Locked) -> dict[str, object]:
    return {
        "path": str(locked.path),
        "wrote": locked.wrote,
        "why": list(locked.why),
        "changes": list(locked.changes),
        "packages": [str(chosen.package.nevra) for chosen in locked.section.resolution.chosen],
        **parent_as_json(locked.parent),
    }
