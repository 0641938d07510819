"""The `pull` command: verify an image on a mirror, and write it as a layout."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.path_arguments import require_output
from pipeline.cli.pulled_image import pull_verified
from pipeline.cli.verification_format import verification_as_json
from pipeline.errors import UsageError
from pipeline.mirror.address_parser import parse_address
from pipeline.oci import read_layout_images, write_layout


@command(
    rank=161,
    interrupted="the layout is not there, or whole; what was fetched stays in the store: run it again to go on",
)
def pull_command(
    context: CommandContext,
    *,
    reference: options.ReferenceArgument,
    key: options.VerifyingKeyOption,
    arch: options.RunArchOption,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
    output: options.LayoutsOption,
) -> int:
    """Verify an image on a mirror, and write its layout.

    It is verified as `verify` does, and written to the output folder under the repository's name.
    """
    build_env = context.build_env()
    target = require_output(output) / Path(parse_address(reference).rest).name
    pulled = pull_verified(
        context, reference, build_env, key=key, arch=arch, known_as=known_as, allow_stale=allow_stale, rules=rules
    )
    if (target / "index.json").exists():
        digest, _ = read_layout_images(target)
        if digest != pulled.image.digest:
            raise UsageError(
                "layout-exists",
                f"the layout there has another image: {digest}",
                place=str(target),
                hint="choose another folder with --output, or move it away",
            )
    write_layout(pulled.image, store=build_env.store, target=target)
    print_lines(f"layout: {target}")
    context.answer({"layout": str(target), "image": str(pulled.image.digest), **verification_as_json(pulled.verified)})
    return 0
