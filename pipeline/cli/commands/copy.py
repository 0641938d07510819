"""The `copy` command: copy an image with its signatures and attestations between mirrors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.key_files import open_either_key, open_former_keys
from pipeline.cli.messages import print_lines
from pipeline.cli.mirror_options import identity_for
from pipeline.cli.move_format import move_as_json, move_text
from pipeline.cli.progress_display import bytes_text
from pipeline.mirror.address_parser import parse_address
from pipeline.release import CopyResult, copy, rules_for


@command(
    rank=130,
    interrupted="a tag, set last, has the former image or the new one. Run it again: what was copied stays",
)
def copy_command(
    context: CommandContext,
    *,
    source: options.ReferenceArgument,
    target: Annotated[
        str, typer.Argument(help="The target: a repository on a mirror, or oci:PATH.", show_default=False)
    ],
    key: Annotated[
        Path,
        typer.Option(
            "--key",
            help="A private key signs under the target's name. With a public one the copy keeps its identity (--as).",
            show_default=False,
        ),
    ],
    former: options.FormerKeyOption = None,
    known_as: options.SignedAsOption,
    allow_stale: options.StaleOption,
    rules: options.RulesOption,
) -> int:
    """Copy images with signatures and attestations to a mirror.

    Without a tag, all images of the repository. They are verified first.
    """
    build_env, there = context.build_env(), parse_address(target)
    either, identity = open_either_key(key, context), identity_for(known_as, rules)
    copied: list[dict[str, object]] = []

    def tell(one: CopyResult) -> None:
        print_lines(*_lines(one))
        copied.append(_json(one))
        context.finished["copied"] = copied

    done = copy(
        parse_address(source),
        there,
        either,
        rules_for(there.form.mirror_of(there), rules, signs=True),
        build_env,
        identity=identity,
        allow_stale=allow_stale,
        former=open_former_keys(former, context),
        finished=tell,
    )
    if done and done[0].former_name:
        name = done[0].former_name
        print_lines(f"note: the repository there is not called '{name}'; {done[0].repository}/{name} would be one")
    context.answer({"copied": copied})
    return 0


def _lines(done: CopyResult) -> tuple[str, ...]:
    copied = done.copied
    sent = sum(size for _, size in copied.uploaded)
    return (
        f"{done.repository}:{done.tags[0]}  {done.digest}",
        f"  {len(copied.uploaded)} uploaded ({bytes_text(sent)}), {len(copied.present)} already present, "
        f"{len(copied.referrers)} new referrers",
        *((f"  tags: {', '.join(done.tags[1:])}",) if done.tags[1:] else ()),
        *(f"  {move_text(move)}" for move in done.moved),
    )


def _json(done: CopyResult) -> dict[str, object]:
    return {
        "repository": done.repository,
        "digest": str(done.digest),
        "tags": list(done.tags),
        "moved": [move_as_json(move) for move in done.moved],
        "uploaded": [{"digest": str(digest), "size": size} for digest, size in done.copied.uploaded],
        "referrers": [str(digest) for digest in done.copied.referrers],
    }
