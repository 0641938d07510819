"""The `completion` command: print the script by which a shell completes command lines."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command


class Shell(StrEnum):
    """Shells whose completion is known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command(rank=270, store=False, json=False, progress=None)
def completion_command(
    context: CommandContext,
    *,
    shell: Annotated[Shell, typer.Argument(help="The shell.", show_default=False)],
) -> int:
    """Print the script by which a shell completes words.

    Commands, options and their values, recipes, platforms, tags.

    bash: `source <(relbuild completion bash)` in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit; fish:
    `relbuild completion fish > ~/.config/fish/completions/relbuild.fish`.
    """
    from pipeline.cli.completion import SCRIPTS

    print(SCRIPTS[shell], end="")
    return 0
