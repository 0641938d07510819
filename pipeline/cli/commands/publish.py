"""The `publish` command: push images that passed their tests to a mirror, signed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_signing_key
from pipeline.cli.messages import print_lines
from pipeline.cli.move_format import limits_as_json, move_as_json, move_text
from pipeline.cli.path_arguments import built_layout
from pipeline.cli.progress_display import bytes_text
from pipeline.mirror.address_parser import parse_address
from pipeline.model.enforcement import enforcement_lines
from pipeline.model.publication import Publication
from pipeline.release import PublishOptions, publish, rules_for

_HINT = "give a layout made by `relbuild build`, such as output/NAME"


@command(
    rank=100,
    interrupted="a tag, set last, has the former image or the new one. Run it again: what was uploaded stays",
)
def publish_command(
    context: CommandContext,
    *,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images built and tested on this machine: layouts, or names in --output. "
            "Those of one product become one index.",
            show_default=False,
        ),
    ],
    to: options.MirrorOption,
    key: options.SigningKeyOption,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Move these tags instead of those derived from the version (repeatable)."),
    ] = None,
    rules: options.RulesOption,
    with_sources: Annotated[
        bool,
        typer.Option("--with-sources", help="Also publish the source packages that `build --with-sources` fetched."),
    ] = False,
    known_as: options.PublicNameOption,
    read_back: Annotated[
        bool,
        typer.Option(
            "--read-back",
            help="Read what was sent, and what a registry says that it has, before a tag points to it. "
            "Otherwise the digests in a registry's answers count.",
        ),
    ] = False,
    output: options.LayoutsOption,
) -> int:
    """Publish images that passed their tests.

    Blobs go first, then manifests, signatures and attestations, and tags last.
    """
    build_env, address = context.build_env(), parse_address(to)
    wanted = PublishOptions(
        layouts=tuple(built_layout(image, output, _HINT) for image in images),
        to=address,
        key=open_signing_key(key, context),
        rules=rules_for(address, rules),
        tags=tuple(tags) if tags else None,
        sources=with_sources,
        known_as=known_as,
        read_back=read_back,
    )
    done = publish(wanted, build_env)
    for one in done:
        print_lines(*published_as_lines(one))
    context.answer({"published": [published_as_json(one) for one in done]})
    return 0


def published_as_lines(done: Publication) -> Iterator[str]:
    """Format the result of a publication as lines for people."""
    yield f"{done.repository}:{done.immutable}  {done.digest}"
    yield from (f"  {line}" for line in enforcement_lines(done.limits))
    if not done.uploaded and not done.moved:
        yield "  unchanged: all content was present, and no tag was moved"
        return
    sent = f"{len(done.uploaded)} uploaded ({bytes_text(done.bytes_uploaded)})"
    yield f"  {sent}, {len(done.mounted)} mounted, {len(done.present)} already present"
    if done.requests:
        kinds = ", ".join(f"{number} {kind}" for kind, number in done.requests)
        yield f"  {sum(number for _, number in done.requests)} requests: {kinds}"
    yield from (f"  {move_text(move)}" for move in done.moved)
    if done.unmoved:
        yield f"  tags already there: {', '.join(done.unmoved)}"


def published_as_json(done: Publication) -> dict[str, object]:
    """Format the result of a publication as JSON values."""
    return {
        "repository": done.repository,
        "digest": str(done.digest),
        "immutable_tag": done.immutable,
        "moved": [move_as_json(move) for move in done.moved],
        "unmoved": list(done.unmoved),
        "uploaded": [{"digest": str(digest), "size": size} for digest, size in done.uploaded],
        "bytes_uploaded": done.bytes_uploaded,
        "mounted": [str(digest) for digest in done.mounted],
        "present": [str(digest) for digest in done.present],
        "attached": [str(digest) for digest in done.attached],
        "limits": limits_as_json(done.limits),
        "requests": dict(done.requests),
    }
