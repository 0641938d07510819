"""The `help` command: print a document that comes with relbuild, or list them."""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import commands
from pipeline.cli.app import CommandContext, app, command
from pipeline.errors import UsageError
from pipeline.shipped import SHIPPED

_DOCUMENTS = SHIPPED / "docs"


@command(rank=235, store=False, progress=None)
def help_command(
    context: CommandContext,
    *,
    topic: Annotated[
        str, typer.Argument(help="A document's name, or a command (default: list the documents).", show_default=False)
    ] = "",
) -> int:
    """Print a document that comes with relbuild.

    Or a command's help; without a topic, the list of documents.
    """
    documents = {path.stem: path for path in sorted(_DOCUMENTS.glob("*.md"))}
    name = topic.lower().removesuffix(".md")
    if not name:
        titles = {name: _title(path) for name, path in documents.items()}
        width = max(map(len, titles), default=0)
        lines = [f"{name:<{width}}  {title}" for name, title in titles.items()]
        context.show(
            [*lines, "", "`relbuild help TOPIC` prints one; `relbuild COMMAND --help` lists a command's options"],
            titles,
        )
    elif name in documents:
        text = documents[name].read_text()
        context.show(text.splitlines(), {"topic": name, "text": text})
    elif name in {commands.words_of(module)[0] for module in commands.modules()}:
        commands.import_commands(name)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed if context.as_json else sys.stdout), contextlib.suppress(SystemExit):
            app([name, "--help"])
        context.answer({"topic": name, "text": printed.getvalue()})
    else:
        raise _unknown(topic, [*documents, *(commands.words_of(module)[0] for module in commands.modules())])
    return 0


def _title(path: Path) -> str:
    """Return a document's first heading."""
    return next((line[2:] for line in path.read_text().splitlines() if line.startswith("# ")), path.stem)


def _unknown(topic: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(topic.lower(), known, n=1, cutoff=0.6)
    hint = f"did you mean `relbuild help {near[0]}`?" if near else "`relbuild help` lists the documents"
    return UsageError("topic-unknown", f"no document or command is called '{topic}'", hint=hint)
