"""The `validate` command: recompute and compare an image's digests, sizes and diff_ids."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.errors import VerificationError
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.oci import validate_layout
from pipeline.release import validate_reference


@command(rank=50)
def validate_command(context: CommandContext, *, image: options.ImageArgument) -> int:
    """Recompute every digest of an image, and report what differs.

    Digests, sizes and diff_ids.
    """
    if is_address(image):
        _, problems = validate_reference(parse_address(image), context.build_env())
    else:
        problems = validate_layout(Path(image))
    if problems:
        raise VerificationError.of(problems)
    print_lines(f"{image}: valid; all digests, sizes and diff_ids match")
    context.answer({"valid": True})
    return 0
