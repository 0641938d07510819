"""The `sbom` command: print an image's software bill of materials."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_trusted_keys
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.path_arguments import built_layout, require_present_key
from pipeline.cli.progress_display import ProgressStyle
from pipeline.errors import Problem, UsageError, VerificationError
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.oci import choose_image, image_architecture, read_layout_images
from pipeline.oci.sbom import SbomForm, sbom_problems
from pipeline.release import attested_sbom
from pipeline.reports import member_layout, read_sbom, report_folder


@command(rank=60, progress=ProgressStyle.NONE)
def sbom_command(
    context: CommandContext,
    *,
    image: options.ImageArgument,
    form: Annotated[SbomForm, typer.Option("--format", help="SPDX 2.3 or CycloneDX 1.6, as JSON.")] = SbomForm.SPDX,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="For an image on a mirror: the public key that must have signed the SBOM."),
    ] = None,
    former: options.FormerKeyOption = None,
    check: Annotated[
        bool, typer.Option("--validate", help="Validate it against the format's schema first (about a second).")
    ] = False,
    known_as: options.SignedAsOption,
    arch: options.IndexArchOption,
    output: options.LayoutsOption,
) -> int:
    """Print an image's software bill of materials.

    That of a layout that was built here, or as a mirror attests it.
    """
    require_present_key(key, former)
    if not is_address(image) and (key is not None or known_as):
        raise UsageError(
            "option-unused",
            f"'{image}' is no reference: {'--as' if key is None else '--key'} would be ignored, and nothing verified",
            hint="leave the option out, or name the image on a mirror",
        )
    if is_address(image):
        if key is None:
            raise UsageError("key-missing", "reading an SBOM from a mirror needs a public key", hint="add --key FILE")
        build_env = context.build_env()
        verifying, identity = open_trusted_keys(key, former, context), identity_for(known_as)
        _, document = attested_sbom(parse_address(image), form, verifying, build_env, identity=identity, arch=arch)
    else:
        layout = built_layout(image, output)
        _, images = read_layout_images(layout)
        one = choose_image(images, arch, image)
        built = layout if len(images) == 1 else member_layout(layout, image_architecture(one))
        document = read_sbom(report_folder(built), form, one.digest)
    problems = sbom_problems(document, form) if check else []
    if problems:
        raise VerificationError.of([Problem("sbom-invalid", text, place=form.file_name) for text in problems])
    sys.stdout.buffer.write(document)
    return 0
