"""The `inspect` command: show an image's digest, platform, settings and layers."""

from __future__ import annotations

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.image_format import image_as_json, image_as_lines
from pipeline.cli.path_arguments import built_layout
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.oci import choose_image, read_layout_images
from pipeline.release import inspect_reference


@command(rank=40, progress=None)
def inspect_command(
    context: CommandContext,
    *,
    image: options.ImageArgument,
    arch: options.IndexArchOption,
    output: options.LayoutsOption,
) -> int:
    """Show an image's digest, platform, settings and layers.

    Of an index, those of each of its images.
    """
    if is_address(image):
        held = inspect_reference(parse_address(image), context.build_env())
        found, digest = held.images, str(held.digest)
    else:
        whole, found = read_layout_images(built_layout(image, output))
        digest = str(whole)
    if arch:
        found = (choose_image(found, arch, image),)
    lines = [line for one in found for line in image_as_lines(one)]
    values = [image_as_json(one) for one in found]
    if len(found) == 1:
        context.show(lines, values[0])
    else:
        context.show([f"index {digest}", *lines], {"digest": digest, "images": values})
    return 0
