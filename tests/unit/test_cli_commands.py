"""The command line knows where its commands are."""

from __future__ import annotations

import gc
import importlib

import pytest
import typer

from pipeline.cli.command import app
from pipeline.cli.commands import COMMANDS, FROM_REPOSITORIES, command_of, reads_repositories


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


def test_what_may_be_offline_reads_repositories_and_so_does_a_worker() -> None:
    for name in COMMANDS:
        importlib.import_module(f"pipeline.cli.{name}")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    offline = {
        name for name, command in commands.items() if "--offline" in {one for p in command.params for one in p.opts}
    }
    assert {*FROM_REPOSITORIES} == offline | {"worker"}


@pytest.mark.parametrize(
    ("words", "command", "reads"),
    [
        ("mysql.yaml", "build", True),
        ("build mysql.yaml", "build", True),
        ("mysql.yaml --help", "build", False),
        ("nightly recipes --to dir:mirror", "nightly", True),
        ("keygen release", "keygen", False),
        ("serve mirror", "serve", False),
        ("verify dir:mirror/mysql:9 --key release.pub", "verify", False),
        ("--help", "", False),
        ("", "", False),
    ],
)
def test_it_is_known_from_the_words_what_is_needed(words: str, command: str, reads: bool) -> None:
    assert command_of(words.split()) == command
    assert reads_repositories(words.split()) is reads


def test_garbage_is_collected_again_when_a_command_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    program = importlib.import_module("pipeline.cli.main")
    begun: list[bool] = []
    monkeypatch.setattr("sys.argv", ["relbuild", "version"])
    monkeypatch.setattr(program, "app", lambda arguments: begun.append(gc.isenabled()))
    gc.disable()  # as `pipeline.cli.main` does before it loads anything
    try:
        program.run()
        assert begun == [True]
    finally:
        gc.enable()
        gc.unfreeze()
