"""The `explain` command: show why a package is in the image."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.build import explain_package
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.recipe_argument import build_options


@command(rank=30, reads_repositories=True)
def explain_command(
    context: CommandContext,
    *,
    recipe: options.RecipeArgument,
    package: Annotated[str, typer.Argument(help="A package's name.", show_default=False)],
    platform: options.PlatformOption,
    arch: options.ArchOption,
    repositories: options.RepositoriesOption,
    offline: options.OfflineOption,
) -> int:
    """Say why a package is in the image."""
    wanted = build_options(recipe, platform, arch, repositories)
    text = explain_package(wanted, context.build_env(offline=offline), package)
    context.show([text], {"package": package, "explanation": text})
    return 0
