"""An image on a mirror that is brought here, verified as `verify` does, and said so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.cli.app import CommandContext
from pipeline.cli.key_files import open_verifying_key
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.progress_display import close
from pipeline.cli.verification_format import verification_lines
from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.model.image import Image
from pipeline.oci import choose_image, image_architecture
from pipeline.prepare import BuildEnvironment
from pipeline.release import PulledImage, pull_image


def pull_verified(
    context: CommandContext,
    reference: str,
    build_env: BuildEnvironment,
    *,
    key: Path | None,
    arch: str,
    known_as: str,
    allow_stale: bool,
    rules: Path | None,
) -> PulledImage:
    """Verify an image on a mirror, fetch its layers, and print what was verified.

    Of an index, the image for `arch`, or that which this machine runs best. Raises UsageError `key-missing` and as
    `pull_image`.
    """
    if key is None:
        raise UsageError(
            "key-missing",
            f"'{reference}' is on a mirror, and no key is given that must have signed it",
            hint="name the publisher's public key: --key FILE",
        )

    def choose(images: Sequence[Image]) -> Image:
        if arch or len(images) == 1:
            return choose_image(images, arch, reference)
        # Here and not above: it needs what builds images, and few images are of an index.
        from pipeline.build import architecture_to_run

        return choose_image(images, architecture_to_run([image_architecture(image) for image in images]), reference)

    pulled = pull_image(
        parse_address(reference),
        choose,
        open_verifying_key(key, context),
        build_env,
        identity=identity_for(known_as, rules),
        allow_stale=allow_stale,
    )
    close(build_env.progress)
    print_lines(*verification_lines(pulled.verified))
    print_lines(
        f"  fetched {pulled.image.digest.short}: {len(pulled.image.layers)} layers, each verified by its digest"
    )
    return pulled
