"""The `verify` command: verify an image on a mirror: bytes, signatures, attestations, tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_verifying_key
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import limits_as_json
from pipeline.cli.progress_display import bytes_text
from pipeline.mirror.address_parser import parse_address
from pipeline.mirror.verification import Verified
from pipeline.model.enforcement import enforcement_lines
from pipeline.release import verify_reference


@command(rank=160)
def verify_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    key: Annotated[
        Path,
        typer.Option(
            "--key", help="The public key that must have signed (a private key works, too).", show_default=False
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the layers, only check that they exist.")] = False,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
) -> int:
    """Verify what a mirror holds.

    Every byte, every signature, every attestation, and the tests' answers once more.
    """
    build_env = context.build_env()
    verifying, identity = open_verifying_key(key, context), identity_for(known_as, rules)
    found = verify_reference(
        parse_address(reference),
        verifying,
        build_env,
        contents=not quick,
        identity=identity,
        allow_stale=allow_stale,
    )
    print_lines(*_lines(found))
    context.answer(_json(found))
    return 0


def _lines(found: Verified) -> Iterator[str]:
    yield f"{found.held.digest}: all digests, signatures and attestations are valid, and its tests passed"
    yield f"  signed as {', '.join(found.identities)}; {bytes_text(found.bytes_read)} of blobs read"
    yield from (f"  {line}" for line in enforcement_lines(found.limits))
    if found.tag is not None:
        until = datetime.fromtimestamp(found.tag.until / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f"  tag '{found.tag.tag}' points here by signed move {found.tag.number}, valid until {until}" + (
            ": EXPIRED, accepted (--allow-stale)" if found.tag.stale else ""
        )
    if found.held.end_of_life:
        yield f"  end of life: {found.held.end_of_life}"
    for digest, types in found.attested:
        yield f"  {digest.short}  {', '.join(sorted(one.removeprefix('https://') for one in types))}"


def _json(found: Verified) -> dict[str, object]:
    return {
        "digest": str(found.held.digest),
        "images": [str(image.digest) for image in found.held.images],
        "end_of_life": found.held.end_of_life or None,
        "identities": list(found.identities),
        "attested": {str(digest): list(types) for digest, types in found.attested},
        "bytes_read": found.bytes_read,
        "limits": limits_as_json(found.limits),
        "tag": None
        if found.tag is None
        else {
            "name": found.tag.tag,
            "signed_as": found.tag.identity,
            "number": found.tag.number,
            "until": found.tag.until,
            "stale": found.tag.stale,
        },
    }
