"""The `new` command: write a first recipe for a product, with comments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.errors import UsageError
from pipeline.recipes import Scaffold, load_platforms, write_scaffold
from pipeline.shipped import platforms_file

_BASE = "base.yaml"
"""A recipe that every new one beside it includes, so that all share its layer."""


@command(rank=220, store=False, progress=None)
def new_command(
    context: CommandContext,
    *,
    name: Annotated[
        str, typer.Argument(help="The product's name; the recipe is written to FOLDER/NAME.yaml.", show_default=False)
    ],
    package: Annotated[
        list[str] | None,
        typer.Option("--package", "-p", help="A package to install (repeatable; default: the product's name)."),
    ] = None,
    parent: Annotated[str, typer.Option("--from", help="The parent recipe: a name in FOLDER, or a path.")] = "",
    platform: options.PlatformOption,
    repositories: Annotated[
        Path | None,
        typer.Option("--repositories", help="The file that defines platforms (default: in FOLDER).", resolve_path=True),
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where recipes are.")] = Path("recipes"),
) -> int:
    """Begin a recipe: commented, valid at once, to be changed.

    Nothing that is there is overwritten.
    """
    path = folder / f"{name}.yaml"
    include = _BASE if not parent and (folder / _BASE).is_file() and name != _BASE.removesuffix(".yaml") else ""
    start = Scaffold(
        name=name,
        packages=tuple(package or (() if parent else (name,))),
        parent=parent,
        include=include,
        platform=_platform(platform, repositories, folder, given=bool(parent or include)),
    )
    write_scaffold(path, start)
    print_lines(
        f"wrote {path}",
        f"  next: `relbuild {path}` builds and tests it, `relbuild smoke {path} --record` drafts checks for it",
    )
    context.answer({"path": str(path)})
    return 0


def _platform(wanted: str | None, repositories: Path | None, folder: Path, *, given: bool) -> str:
    """Return the platform that the recipe has to name.

    It is the one that is wanted, else the first that there is; "" if another recipe gives it.
    """
    if wanted is None and given:
        return ""
    file = repositories or platforms_file(folder)
    if repositories is None and not file.is_file():
        raise UsageError(
            "platforms-missing",
            f"no repositories.yaml in '{folder}'",
            place=str(file),
            hint="`relbuild init` writes one; or give it with --repositories",
        )
    platforms = load_platforms(file)
    if wanted is not None:
        platforms.find(wanted)
        return wanted
    first = next(iter(platforms), None)
    if first is None:
        raise UsageError(
            "platforms-missing", f"{file} defines no platform", place=str(file), hint="define a platform there"
        )
    return first
