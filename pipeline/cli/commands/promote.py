"""The `promote` command: move a tag such as `stable` to an image that was tested."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_former_keys, open_signing_key
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import moved_as_json, moved_as_lines
from pipeline.mirror.address_parser import parse_address
from pipeline.release import promote, rules_for


@command(
    rank=110,
    interrupted="the tag has the former image or whole the new one (`relbuild history` tells): run it again",
)
def promote_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    to: Annotated[str, typer.Option("--to", help="The channel: a tag such as 'stable'.", show_default=False)],
    key: options.SigningKeyOption,
    former: options.FormerKeyOption = None,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
) -> int:
    """Point a channel at the very digest that was tested. Nothing is uploaded."""
    build_env, address = context.build_env(), parse_address(reference)
    signing, identity = open_signing_key(key, context), identity_for(known_as, rules)
    moved = promote(
        address,
        to,
        signing,
        rules_for(address, rules, signs=True),
        build_env,
        identity=identity,
        allow_stale=allow_stale,
        former=open_former_keys(former, context),
    )
    print_lines(*moved_as_lines(moved))
    context.answer(moved_as_json(moved))
    return 0
