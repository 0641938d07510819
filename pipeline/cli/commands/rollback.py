"""The `rollback` command: move a tag back to an image that it pointed to before."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_signing_key
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import moved_as_json, moved_as_lines
from pipeline.mirror.address_parser import parse_address
from pipeline.release import rollback, rules_for


@command(
    rank=120,
    interrupted="the tag has the former image or whole the new one: see `relbuild history`. Only if it has not moved, "
    "run it again: a second rollback goes further back (with --to DIGEST it does not)",
)
def rollback_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    key: options.SigningKeyOption,
    to: Annotated[
        str | None,
        typer.Option("--to", help="The digest to go back to (default: the tag's previous one).", show_default=False),
    ] = None,
    known_as: options.SignedAsOption,
    rules: options.RulesOption,
) -> int:
    """Point a tag at what it pointed to before, verified first. Nothing is uploaded."""
    build_env, address = context.build_env(), parse_address(reference)
    target = parse_address(f"{address.url}@{to}").digest if to else None
    signing, identity = open_signing_key(key, context), identity_for(known_as, rules)
    moved = rollback(address, target, signing, rules_for(address, rules), build_env, identity=identity)
    print_lines(*moved_as_lines(moved))
    context.answer(moved_as_json(moved))
    return 0
