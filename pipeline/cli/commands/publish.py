"""The `publish` command: push images that passed their tests to a mirror, signed."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.path_arguments import built_layout, require_key_file
from pipeline.cli.remembered_publications import PublishRequest, name_of_publication, repeat_publication
from pipeline.mirror.address_parser import parse_mirror_address

# What publishes is imported when something is published: to see that nothing changed takes a fraction of that.

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
    former: options.FormerKeyOption = None,
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
    request = PublishRequest(
        layouts=tuple(built_layout(image, output, _HINT) for image in images),
        to=parse_mirror_address(to, "--to"),
        key=require_key_file(key),
        rules=rules,
        tags=tuple(tags or ()),
        known_as=known_as,
        former=tuple(former or ()),
    )
    store = context.open_store()
    ordinary = not with_sources and not read_back and not request.former
    repeatable = ordinary and request.to.form.can_ask_again(request.to, context.environment)
    name = name_of_publication(request, store, context.environment) if repeatable else None
    answers = repeat_publication(name, request, context, store) if name is not None else None
    if answers is None:
        from pipeline.cli.publish_run import run_publish

        answers = run_publish(request, name, context, sources=with_sources, read_back=read_back)
    context.answer({"published": list(answers)})
    return 0
