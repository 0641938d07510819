"""The `scrub` command: read all content of a mirror, set damaged content aside, restore it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.cli.app import CommandContext, command
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import bytes_text
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.address_parser import parse_mirror_address
from pipeline.model.quantities import Malformed, parse_throughput
from pipeline.model.scrub import Finding, RepairOutcome, ScrubResult
from pipeline.release import scrub

_SHOWN = 100
"""Findings that a terminal shows; `--json` has all."""


@command(
    rank=200,
    interrupted="nothing is damaged by that; run it again to go on with what was not read yet",
)
def scrub_command(
    context: CommandContext,
    *,
    mirror: Annotated[
        str,
        typer.Argument(help="The mirror: dir:PATH, registry://HOST/NAMESPACE or oci:PATH.", show_default=False),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option("--from", help="A mirror to restore damaged content from (repeatable).", show_default=False),
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Limit the reading rate, such as 50MB/s.", show_default=False)
    ] = None,
    known_as: Annotated[
        str,
        typer.Option(
            "--as",
            help="HOST/NAMESPACE that clients pull from, for a directory that lost its name.",
            show_default=False,
        ),
    ] = "",
) -> int:
    """Read everything on a mirror, and heal what is damaged.

    What is damaged is put aside.

    It is healed from the store or from another mirror.
    """
    done = scrub(
        parse_mirror_address(mirror, "scrub"),
        context.build_env(),
        sources=[parse_mirror_address(one, "--from") for one in source or ()],
        rate=_rate(rate),
        known_as=known_as,
    )
    print_lines(*_lines(done))
    context.answer(done.json())
    return VerificationError.exit_code if done.lost else 0


def _rate(text: str | None) -> int:
    """Parse bytes per second, 0 if not given; `MB` is accepted for `M`."""
    if text is None:
        return 0
    try:
        return parse_throughput(text.replace("B/s", "/s") if not text.endswith("iB/s") else text)
    except Malformed as error:
        raise UsageError("rate-malformed", f"--rate {text[:40]}: {error}", hint="write a rate such as 50MB/s") from None


def _lines(done: ScrubResult) -> Iterator[str]:
    earlier = f", {done.earlier} read before the interruption" if done.earlier else ""
    yield (
        f"{done.mirror}: {done.blobs} blobs ({bytes_text(done.bytes_read)}){earlier}, "
        f"{done.manifests} manifests, {done.tags} tags"
    )
    if done.drafts:
        yield f"  {done.drafts} temporary files of killed processes removed"
    yield from (_finding(one) for one in done.findings[:_SHOWN])
    if len(done.findings) > _SHOWN:
        yield f"  … and {len(done.findings) - _SHOWN} more (--json has all)"
    if not done.findings:
        yield "  no damage found"
    elif done.lost:
        yield from _ways_out(done)
    else:
        yield f"  {len(done.findings)} found, all healed or unused"


def _ways_out(done: ScrubResult) -> Iterator[str]:
    """Tell what heals the findings that this scrub could not heal."""
    missing = len(done.lost) - len(done.kept)
    if missing:
        yield f"  {missing} could not be healed; give a mirror that has them with --from, or publish them again"
    if done.kept:
        yield (
            f"  {len(done.kept)} could not be healed, and neither --from nor publishing again heals them: remove their "
            "files from the registry's own storage (docker-registry: docker/registry/v2/blobs/sha256/AB/ABCD…/data), "
            "restart the registry, and run this scrub again"
        )


def _finding(one: Finding) -> str:
    where = f" of {one.repository}" if one.repository else ""
    fate = f"healed from {one.source}" if one.fate is RepairOutcome.HEALED else str(one.fate)
    if one.fate is RepairOutcome.ASIDE:
        fate += ", unused"
    return f"  {one.thing} {one.name}{where} was {one.wrong}: {fate}"
