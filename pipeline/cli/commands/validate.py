"""The `validate` command: recompute and compare an image's digests, sizes and diff_ids."""

from __future__ import annotations

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.path_arguments import built_layout
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.oci import has_attachments, validate_layout
from pipeline.release import validate_reference


@command(rank=50)
def validate_command(context: CommandContext, *, image: options.ImageArgument, output: options.LayoutsOption) -> int:
    """Recompute every digest of an image, and report what differs.

    Digests, sizes and diff_ids.
    """
    if is_address(image):
        _, problems = validate_reference(parse_address(image), context.build_env())
    else:
        layout = built_layout(image, output)
        if has_attachments(layout):
            raise UsageError(
                "several-images",
                f"'{layout}' carries signatures and attestations beside images, as a mirror",
                place=str(layout),
                hint=f"validate one by its tag: oci:{layout}:TAG; `relbuild scrub oci:{layout}` reads all of it",
            )
        problems = validate_layout(layout)
    if any(problem.code == "not-a-layout" for problem in problems):
        raise UsageError.of(problems)
    if problems:
        raise VerificationError.of(problems)
    print_lines(f"{image}: valid; all digests, sizes and diff_ids match")
    context.answer({"valid": True})
    return 0
