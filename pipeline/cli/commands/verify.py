"""The `verify` command: verify an image on a mirror: bytes, signatures, attestations, tests."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_trusted_keys
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.verification_format import verification_as_json, verification_lines
from pipeline.mirror.address_parser import parse_address
from pipeline.release import verify_reference


@command(rank=160)
def verify_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    key: options.VerifyingKeyOption,
    former: options.FormerKeyOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the layers, only check that they exist.")] = False,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
) -> int:
    """Verify an image on a mirror.

    Every byte, every signature, every attestation, and the tests' answers once more.
    """
    build_env = context.build_env()
    verifying, identity = open_trusted_keys(key, former, context), identity_for(known_as, rules)
    found = verify_reference(
        parse_address(reference),
        verifying,
        build_env,
        contents=not quick,
        identity=identity,
        allow_stale=allow_stale,
    )
    print_lines(*verification_lines(found))
    context.answer(verification_as_json(found))
    return 0
