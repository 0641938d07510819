"""The command line knows where its commands are."""

from __future__ import annotations

import importlib

from pipeline.cli.command import app
from pipeline.cli.main import COMMANDS


def test_every_command_is_in_the_file_that_the_table_names() -> None:
    before: set[str | None] = {command.name for command in app.registered_commands}
    for name, commands in COMMANDS.items():
        module = importlib.import_module(f"pipeline.cli.{name}")
        own = {
            command.name
            for command in app.registered_commands
            if command.callback is not None and command.callback.__module__ == module.__name__
        }
        groups = {group.name for group in app.registered_groups} & set(commands)
        assert own | groups == set(commands), name
    assert before <= {command for commands in COMMANDS.values() for command in commands}
