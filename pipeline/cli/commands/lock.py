"""The `lock` command: resolve a recipe, write its lock, and show what changed."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.build import lock_architectures
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.image_format import parent_as_json
from pipeline.cli.messages import print_lines
from pipeline.cli.recipe_argument import build_options
from pipeline.cli.recipe_place import naming_files
from pipeline.prepare import LockedRecipe
from pipeline.resolve import LockMode


@command(
    rank=20,
    reads_repositories=True,
    interrupted="the lock is the former one, or whole the new one; what was fetched stays in the store: run it again",
)
def lock_command(
    context: CommandContext,
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
    mode = LockMode.LOCKED if check else LockMode.UPGRADE if upgrade else LockMode.DEFAULT
    wanted = build_options(recipe, platform, arch, repositories, mode=mode, smoke=False)
    with naming_files(wanted.recipe, wanted.repositories):
        every = lock_architectures(wanted, context.build_env(offline=offline))
    for locked in every:
        print_lines(*locked_as_lines(locked))
    context.answer(_json(every[0]) if len(every) == 1 else {"locked": [_json(locked) for locked in every]})
    return 0


def locked_as_lines(locked: LockedRecipe) -> tuple[str, ...]:
    """Format the result of `relbuild lock` as lines for people."""
    count = str(len(locked.section.resolution.chosen))
    if locked.parent is not None:
        count = f"{len(locked.parent.packages)} of the parent image '{locked.parent.name}' and {count}"
    if not locked.wrote:
        return (f"{locked.path} is fresh: {count} packages",)
    return (
        f"wrote {locked.path}: {count} packages ({'; '.join(locked.why) or 'account IDs'})",
        *locked.changes,
    )


def _json(locked: LockedRecipe) -> dict[str, object]:
    return {
        "path": str(locked.path),
        "wrote": locked.wrote,
        "why": list(locked.why),
        "changes": list(locked.changes),
        "packages": [str(chosen.package.nevra) for chosen in locked.section.resolution.chosen],
        **parent_as_json(locked.parent),
    }
