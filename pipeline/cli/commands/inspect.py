"""The `inspect` command."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli import options
from pipeline.cli.app import Surroundings, command
from pipeline.cli.image_format import image_as_json, image_as_lines
from pipeline.mirror.addresses import is_address, parse_address
from pipeline.oci import read_layout
from pipeline.release import look_at


@command(rank=40, progress=None)
def inspect_command(around: Surroundings, *, image: options.ImageArgument) -> int:
    """Show what an image is made of."""
    if is_address(image):
        held = look_at(parse_address(image), around.workshop())
        found, digest = held.images, str(held.digest)
    else:
        found = (read_layout(Path(image)),)
        digest = str(found[0].digest)
    lines = [line for one in found for line in image_as_lines(one)]
    values = [image_as_json(one) for one in found]
    if len(found) == 1:
        around.show(lines, values[0])
    else:
        around.show([f"index {digest}", *lines], {"digest": digest, "images": values})
    return 0
