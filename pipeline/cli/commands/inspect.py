"""The `inspect` command: show an image's digest, platform, settings and layers."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.image_format import image_as_json, image_as_lines
from pipeline.cli.path_arguments import built_layout
from pipeline.cli.progress_display import ProgressStyle
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.model.image import Image
from pipeline.oci import choose_image, image_architecture, read_layout_images
from pipeline.release import inspect_reference


@command(rank=40, progress=ProgressStyle.NONE)
def inspect_command(
    context: CommandContext,
    *,
    image: options.ImageArgument,
    arch: options.IndexArchOption,
    output: options.LayoutsOption,
) -> int:
    """Show an image's digest, platform, settings and layers.

    Of an index, those of each of its images. With --json also the packages of each layer, of an image that was built
    here; `relbuild sbom` has them of any.
    """
    layout = None
    if is_address(image):
        held = inspect_reference(parse_address(image), context.build_env())
        found, digest = held.images, str(held.digest)
    else:
        layout = built_layout(image, output)
        whole, found = read_layout_images(layout)
        digest = str(whole)
    several = len(found) > 1
    if arch:
        found = (choose_image(found, arch, image),)
    lines = [line for one in found for line in image_as_lines(one)]
    values = [_as_json(one, layout, several=several) if context.as_json else {} for one in found]
    if len(found) == 1:
        context.show(lines, values[0])
    else:
        context.show([f"index {digest}", *lines], {"digest": digest, "images": values})
    return 0


def _as_json(image: Image, layout: Path | None, *, several: bool) -> dict[str, object]:
    """Format an image as JSON values, with the packages that its build recorded if it did."""
    if layout is not None:
        from pipeline.reports import member_layout, read_bill, report_folder  # Here and not above: only JSON needs it.

        built = member_layout(layout, image_architecture(image)) if several else layout
        with contextlib.suppress(UsageError, VerificationError):
            bill = read_bill(report_folder(built))
            if bill.digest == image.digest:
                names = [layer.name for layer in bill.layers]
                contents = [tuple(str(one.nevra) for one in bill.packages if one.layer == name) for name in names]
                pairs = zip(image.layers, contents, strict=True)
                return image_as_json(replace(image, layers=tuple(replace(one, contents=held) for one, held in pairs)))
    return image_as_json(image, packages=False)
