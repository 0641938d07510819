"""Commands that bring images to mirrors, and that move tags there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import (
    JsonOption,
    KeyOption,
    ProgressOption,
    RulesOption,
    StoreOption,
    Surroundings,
    answer,
    app,
    perform,
    say,
)
from pipeline.cli.identity import IdentityOption, StaleOption, identity_for
from pipeline.cli.keys import either_key, password, signing_key
from pipeline.cli.progress import Look
from pipeline.cli.released import (
    copied_as_json,
    copied_as_lines,
    moved_as_json,
    moved_as_lines,
    published_as_json,
    published_as_lines,
)
from pipeline.errors import UsageError
from pipeline.mirror.address import Address
from pipeline.mirror.addresses import parse_address
from pipeline.model.rules import MirrorRules
from pipeline.oci import generate_key
from pipeline.recipes import load_rules
from pipeline.release import PublishOrder, copy, promote, publish, rollback

RULES_FILE = "rules.yaml"
"""The keeper's rules in the root of a directory mirror."""

ReferenceArgument = Annotated[
    str,
    typer.Argument(help="registry://HOST/NAMESPACE/NAME:TAG, dir:PATH/NAME:TAG or oci:PATH:TAG", show_default=False),
]


def rules_for(address: Address, rules: Path | None) -> MirrorRules:
    """The keeper's rules: those that are named, or those that a directory mirror brings."""
    if rules is not None:
        return load_rules(rules)
    own = address.form.keepers_file(address, RULES_FILE)
    return load_rules(own) if own is not None else MirrorRules()


@app.command("publish")
def publish_command(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Images that were built and tested here: layouts, or names in --output. "
            "Those of one product become one index.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help="The mirror: registry://HOST/NAMESPACE or dir:PATH.", show_default=False)
    ],
    key: KeyOption,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Move these tags and not those that follow the version (repeatable)."),
    ] = None,
    rules: RulesOption = None,
    with_sources: Annotated[
        bool, typer.Option("--with-sources", help="With the source packages that `build --with-sources` fetched.")
    ] = False,
    known_as: Annotated[
        str, typer.Option("--as", help="HOST/NAMESPACE by which people pull from a new directory mirror.")
    ] = "",
    output: Annotated[Path, typer.Option(help="Where builds have left their layouts.")] = Path("output"),
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Publish images that passed their tests.

    Blobs go first, then manifests, signatures and attestations, and tags last.
    """

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        address = parse_address(to)
        order = PublishOrder(
            layouts=tuple(_layout(image, output) for image in images),
            to=address,
            key=signing_key(key, workshop.environment, workshop.progress),
            rules=rules_for(address, rules),
            tags=tuple(tags) if tags else None,
            sources=with_sources,
            known_as=known_as,
        )
        done = publish(order, workshop)
        for one in done:
            say(*published_as_lines(one))
        if around.as_json:
            answer({"published": [published_as_json(one) for one in done]})
        return 0

    perform(act, progress, as_json)


def _layout(image: str, output: Path) -> Path:
    for path in (Path(image), output / image):
        if (path / "oci-layout").is_file():
            return path
    raise UsageError(
        "not-a-layout",
        f"there is no image in '{image}'" + ("" if "/" in image else f" nor in {output / image}"),
        hint="name a layout that `relbuild build` left, such as output/NAME",
    )


@app.command("promote")
def promote_command(
    reference: ReferenceArgument,
    to: Annotated[str, typer.Option("--to", help="The channel: a tag such as 'stable'.", show_default=False)],
    key: KeyOption,
    known_as: IdentityOption = "",
    allow_stale: StaleOption = False,
    rules: RulesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Point a channel at the very digest that was tested. Nothing is uploaded."""

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        address = parse_address(reference)
        signing = signing_key(key, workshop.environment, workshop.progress)
        identity = identity_for(known_as, rules)
        moved = promote(
            address, to, signing, rules_for(address, rules), workshop, identity=identity, allow_stale=allow_stale
        )
        say(*moved_as_lines(moved))
        if around.as_json:
            answer(moved_as_json(moved))
        return 0

    perform(act, progress, as_json)


@app.command("rollback")
def rollback_command(
    reference: ReferenceArgument,
    key: KeyOption,
    to: Annotated[
        str | None, typer.Option("--to", help="A digest (default: what the tag pointed to before).", show_default=False)
    ] = None,
    known_as: IdentityOption = "",
    rules: RulesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Point a tag at what it pointed to before, verified first. Nothing is uploaded."""

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        address = parse_address(reference)
        target = parse_address(f"{address.url}@{to}").digest if to else None
        signing = signing_key(key, workshop.environment, workshop.progress)
        identity = identity_for(known_as, rules)
        moved = rollback(address, target, signing, rules_for(address, rules), workshop, identity=identity)
        say(*moved_as_lines(moved))
        if around.as_json:
            answer(moved_as_json(moved))
        return 0

    perform(act, progress, as_json)


EitherOption = Annotated[
    Path,
    typer.Option(
        "--key",
        help="The private key: signs under the target's name. With a public one the target is a mirror (see --as).",
        show_default=False,
    ),
]


@app.command("copy")
def copy_command(
    source: ReferenceArgument,
    target: Annotated[str, typer.Argument(help="Where to: a repository on a mirror, or oci:PATH.", show_default=False)],
    key: EitherOption,
    known_as: IdentityOption = "",
    allow_stale: StaleOption = False,
    rules: RulesOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Carry an image with its signatures and attestations from one mirror to another.

    Without a tag, all images of the repository. They are verified first.
    """

    def act(around: Surroundings) -> int:
        workshop = around.workshop(store)
        there = parse_address(target)
        either = either_key(key, workshop.environment, workshop.progress)
        identity = identity_for(known_as, rules)
        done = copy(
            parse_address(source),
            there,
            either,
            rules_for(there, rules),
            workshop,
            identity=identity,
            allow_stale=allow_stale,
        )
        for one in done:
            say(*copied_as_lines(one))
        if around.as_json:
            answer({"copied": [copied_as_json(one) for one in done]})
        return 0

    perform(act, progress, as_json)


@app.command("keygen")
def keygen_command(
    name: Annotated[str, typer.Argument(help="Writes NAME.key and NAME.pub.")] = "relbuild",
    progress: ProgressOption = Look.NONE,
) -> None:
    """Make a key to sign with: NAME.key (encrypted, in cosign's form) and NAME.pub."""

    def act(around: Surroundings) -> int:
        private, public = Path(f"{name}.key"), Path(f"{name}.pub")
        for path in (private, public):
            if path.exists():
                raise UsageError("key-exists", f"{path} is there already", hint="name another, or move it away")
        secret, open_half = generate_key(password(private, around.environment)())
        private.touch(mode=0o600, exist_ok=False)
        private.write_bytes(secret)
        public.write_bytes(open_half)
        say(f"wrote {private} (keep it to yourself) and {public} (give it to all who verify)")
        return 0

    perform(act, progress, False)
