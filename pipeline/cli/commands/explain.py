"""The `explain` command: show why a package is in the image."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.build import explain_package
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.recipe_argument import build_options
from pipeline.cli.recipe_place import naming_files


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
    """Say why a package is in the image.

    With several architectures, of each.
    """
    wanted = build_options(recipe, platform, arch, repositories)
    with naming_files(wanted.recipe, wanted.repositories):
        told = explain_package(wanted, context.build_env(offline=offline), package)
    if len(told) == 1:
        (text,) = told.values()
        context.show(text.splitlines(), {"package": package, "explanation": text})
        return 0
    text = "\n\n".join(f"{arch}:\n{one}" for arch, one in told.items())
    context.show(text.splitlines(), {"package": package, "explanation": text, "architectures": told})
    return 0
