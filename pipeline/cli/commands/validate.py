"""The `validate` command."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli import options
from pipeline.cli.app import Surroundings, command
from pipeline.cli.messages import say
from pipeline.errors import VerificationError
from pipeline.mirror.addresses import is_address, parse_address
from pipeline.oci import validate
from pipeline.release import validate_held


@command(rank=50)
def validate_command(around: Surroundings, *, image: options.ImageArgument) -> int:
    """Recompute every digest, size and diff_id of an image, and report all that does not match."""
    if is_address(image):
        _, problems = validate_held(parse_address(image), around.workshop())
    else:
        problems = validate(Path(image))
    if problems:
        raise VerificationError.of(problems)
    say(f"{image}: every digest, size and diff_id holds")
    around.answer({"valid": True})
    return 0
