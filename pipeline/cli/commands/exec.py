"""The `exec` command: run a command in an instance, with a terminal if there is one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.attached_streams import CopiedStreams, piped_streams, terminal_streams
from pipeline.cli.environment_options import environment_options
from pipeline.cli.messages import print_error
from pipeline.errors import SmokeError
from pipeline.instances import ExecRequest, ExecSession, find_instance, open_exec_session

_NOT_STARTED = 127
"""Exit status of a command that was not found, as of a shell."""


@command(rank=93, json=False, progress=None, options_first=True)
def exec_command(
    context: CommandContext,
    *,
    name: options.InstanceArgument,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND]...", help="A program and its arguments (default: a shell).")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Pass standard input on, also without a terminal.")
    ] = False,
    terminal: Annotated[
        bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="With a terminal (default: if there is one here).")
    ] = None,
    user: Annotated[str, typer.Option("--user", "-u", help="NAME or UID[:GID] (default: the instance's).")] = "",
    env: options.EnvOption,
) -> int:
    """Run a command in an instance.

    It has the instance's user, environment and isolation; the exit status is the command's.
    """
    folder = find_instance(context.open_store().instances, name)
    # Without a terminal on both sides a command gets none, which would mix its streams.
    present = os.isatty(0) and os.isatty(1)
    with_terminal = present if terminal is None else terminal and present
    environment = environment_options(env or (), context.environment)
    if with_terminal:
        environment = {"TERM": context.environment.get("TERM", "dumb"), **environment}
    argv = words or []
    argv = argv[1:] if argv[:1] == ["--"] else argv
    request = ExecRequest(
        tuple(argv), user, tuple(f"{key}={value}" for key, value in environment.items()), with_terminal
    )
    sessions: list[ExecSession] = []
    with _streams(sessions, terminal=with_terminal, stdin=interactive) as streams:
        session = open_exec_session(folder, request, streams.given)
        sessions.append(session)
        with contextlib.closing(session):
            streams.started()
            code, refusal = session.outcome()
        streams.finish()
    if refusal:
        print_error(
            SmokeError(
                "command-not-started",
                f"the command was not started in '{name}': {refusal}",
                hint="check the name of the program; an image has only what its recipe puts there",
            )
        )
        return _NOT_STARTED
    return code


@contextlib.contextmanager
def _streams(sessions: list[ExecSession], *, terminal: bool, stdin: bool) -> Iterator[CopiedStreams]:
    def resized() -> None:
        for session in sessions:
            session.resize()

    if terminal:
        with terminal_streams(resized) as streams:
            yield streams
    else:
        yield piped_streams(stdin=stdin)
