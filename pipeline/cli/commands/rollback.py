"""The `rollback` command: move a tag back to an image that it pointed to before."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.environment_options import malformed_option
from pipeline.cli.key_files import open_former_keys, open_signing_key
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import moved_as_json, moved_as_lines
from pipeline.digest import Digest
from pipeline.mirror.address_parser import parse_address
from pipeline.release import rollback, rules_for

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGITS = re.compile(r"[0-9a-f]{7,63}")
"""As many as git takes for unique, at least; twelve are shown everywhere."""


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
    former: options.FormerKeyOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="The digest to go back to, or its first digits (default: the tag's previous one).",
            show_default=False,
        ),
    ] = None,
    known_as: options.SignedAsOption,
    rules: options.RulesOption,
) -> int:
    """Point a tag at what it pointed to before, verified first. Nothing is uploaded."""
    build_env, address = context.build_env(), parse_address(reference)
    target = _digest(to) if to is not None else None
    signing, identity = open_signing_key(key, context), identity_for(known_as, rules)
    moved = rollback(
        address,
        target,
        signing,
        rules_for(address, rules, signs=True),
        build_env,
        identity=identity,
        former=open_former_keys(former, context),
    )
    print_lines(*moved_as_lines(moved))
    context.answer(moved_as_json(moved))
    return 0


def _digest(text: str) -> Digest | str:
    """Parse `--to`: a digest, or the first of its digits. Raises UsageError `option-malformed`."""
    digits = text.removeprefix("sha256:")
    if _DIGEST.fullmatch(digits):
        return Digest(digits)
    if _DIGITS.fullmatch(digits):
        return digits
    raise malformed_option("--to", text[:140], "sha256:…, or the first digits that `relbuild history` shows")
