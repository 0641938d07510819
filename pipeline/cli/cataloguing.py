"""The command that makes a whole catalogue, every night."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import pipeline.process as processes
from pipeline.cli.command import (
    CHECKOUT,
    ArchOption,
    FullOption,
    JsonOption,
    OfflineOption,
    PlatformOption,
    ProgressOption,
    RepositoriesOption,
    RuntimeOption,
    StoreOption,
    Surroundings,
    answer,
    app,
    perform,
    say,
)
from pipeline.cli.keys import PASSWORD_VARIABLES, KeyOption, password
from pipeline.cli.progress import Look, size_text
from pipeline.cli.publishing import RulesOption, rules_for
from pipeline.errors import UsageError
from pipeline.gather import Workshop
from pipeline.mirror.addresses import MirrorKind, parse_address
from pipeline.model.image import Compression
from pipeline.model.json_form import to_json
from pipeline.model.night import Night, Outcome, Product
from pipeline.nightly.catalogue import PLATFORMS_FILE, Wanted
from pipeline.nightly.crew import Crew, LocalCrew, processors
from pipeline.nightly.former import FormerNight
from pipeline.nightly.narrative import NightOrder, Planned, nightly, plan
from pipeline.nightly.working import Making
from pipeline.oci import load_signing_key

GIT_TIMEOUT = 60.0
"""Seconds that git may take to say what changed."""


@app.command("nightly")
def nightly_command(
    catalogue: Annotated[
        list[Path], typer.Argument(help="Folders of recipes, or recipes by their files.", show_default=False)
    ],
    to: Annotated[
        str, typer.Option("--to", help="The mirror: registry://HOST/NAMESPACE or dir:PATH.", show_default=False)
    ],
    key: KeyOption,
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what would be done and why, and do nothing.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="This product, and what it is built from (repeatable).")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="Products whose image has this label, KEY=VALUE (repeatable).")
    ] = None,
    changed_since: Annotated[
        str | None,
        typer.Option("--changed-since", help="Products whose files differ from this git revision, and all above."),
    ] = None,
    containing: Annotated[
        list[str] | None, typer.Option("--containing", help="Products whose image has this package (repeatable).")
    ] = None,
    locked: Annotated[bool, typer.Option("--locked", help="Build the committed locks; resolve nothing.")] = False,
    write_locks: Annotated[
        bool, typer.Option("--write-locks", help="Put tonight's locks beside the recipes of what was published.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Products at a time (default: one for each processor).")
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="Where the pages go (default: nightly/ in a directory mirror).")
    ] = None,
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    rules: RulesOption = None,
    known_as: Annotated[
        str, typer.Option("--as", help="HOST/NAMESPACE by which people pull from a new directory mirror.")
    ] = "",
    full: FullOption = False,
    retest: Annotated[bool, typer.Option("--retest", help="Build and test everything, changed or not.")] = False,
    compression: Annotated[Compression, typer.Option(help="How layers are compressed.")] = Compression.GZIP,
    output: Annotated[Path, typer.Option(help="Where layouts and reports go.")] = Path("output"),
    offline: OfflineOption = False,
    runtime: RuntimeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Build, test and publish what changed in a catalogue of recipes, and write the morning's page."""

    def act(around: Surroundings) -> int:
        if locked and write_locks:
            raise UsageError("options-contradict", "--locked and --write-locks contradict each other", hint="give one")
        workshop = around.workshop(store, offline=offline, runtime=runtime)
        address, environment = parse_address(to), around.environment
        making = Making(
            repositories=repositories or _platforms(catalogue),
            to=address,
            key=key,
            store=workshop.store.root,
            output=output,
            environment=environment,
            clock=workshop.clock,
            platform=platform,
            architectures=tuple(arch or ()),
            known_as=known_as,
            rules=rules_for(address, rules),
            compression=compression,
            locked=locked,
            offline=offline,
            full=full,
            retest=retest,
            runtime=runtime,
        )
        wanted = Wanted(
            names=tuple(only or ()),
            labels=tuple(_label(text) for text in labels or ()),
            changed=_changed(catalogue, changed_since) if changed_since is not None else None,
            containing=tuple(containing or ()),
        )
        order = NightOrder(tuple(catalogue), making, wanted, write_locks)
        pages = site or (address.path / "nightly" if address.kind is MirrorKind.DIRECTORY else None)
        former = FormerNight(pages / "nightly.json" if pages else Path())
        if plan_only:
            planned = plan(order, workshop, former)
            say(*_planned_lines(planned))
            if around.as_json:
                answer({"plan": [_planned_as_json(one) for one in planned]})
            return 0

        def crew() -> Crew:
            _unlock(key, environment, workshop)
            return LocalCrew(workshop.progress, jobs or processors())

        night = nightly(order, workshop, crew, former)
        say(*_night_lines(night))
        if around.as_json:
            answer(to_json(night))
        return night.exit_code

    perform(act, progress, as_json)


def _unlock(key: Path, environment: dict[str, str], workshop: Workshop) -> None:
    """Read the key before anything is built. A password that a person types is for all workers of this night. Raises
    UsageError, EnvironmentLacking."""

    def ask() -> bytes:
        given = password(key, environment)()
        environment[PASSWORD_VARIABLES[0]] = given.decode()
        return given

    load_signing_key(key, ask, progress=workshop.progress)


def _platforms(catalogue: list[Path]) -> Path:
    folders = [place if place.is_dir() else place.parent for place in catalogue]
    beside = [folder / PLATFORMS_FILE for folder in folders] + [CHECKOUT / "recipes" / PLATFORMS_FILE]
    return next((path for path in beside if path.exists()), beside[0])


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError("label-malformed", f"'{text}' is not KEY=VALUE", hint="write --label team=databases")
    return key, value


def _changed(catalogue: list[Path], revision: str) -> tuple[Path, ...]:
    """The files that differ from a git revision, also those that git does not know yet."""
    folder = catalogue[0] if catalogue[0].is_dir() else catalogue[0].parent
    if revision.startswith("-"):
        raise UsageError("revision-unknown", f"'{revision}' is no revision", hint="name a commit, branch or tag")

    def git(*words: str) -> list[str]:
        done = processes.run(["git", "-C", folder, *words], timeout=GIT_TIMEOUT, check=False)
        if done.status != 0:
            raise UsageError(
                "revision-unknown",
                f"git cannot tell what changed since '{revision}': {done.stderr.decode(errors='replace').strip()}",
                place=str(folder),
                hint="name a revision that is in this clone: a shallow one lacks most of them",
            )
        return [name for name in done.stdout.decode(errors="surrogateescape").split("\0") if name]

    top = Path(git("rev-parse", "--show-toplevel")[0].rstrip("\n"))
    names = [
        *git("diff", "--name-only", "-z", revision, "--"),
        *git("ls-files", "-z", "--others", "--exclude-standard", "--full-name"),
    ]
    return tuple(Path(os.path.normpath(top / name)) for name in names)


# --- said ----------------------------------------------------------------------------------------


def _planned_lines(planned: tuple[Planned, ...]) -> list[str]:
    return [f"{one.action:<9} {one.product.name}: {one.product.why}" for one in planned]


def _planned_as_json(planned: Planned) -> dict[str, object]:
    product = planned.product
    return {
        "action": planned.action,
        "product": product.name,
        "recipe": product.recipe,
        "platform": product.platform,
        "arch": product.arch,
        "from": product.parent,
        "why": product.why,
    }


def _night_lines(night: Night) -> list[str]:
    counts = ", ".join(f"{night.count(outcome)} {outcome}" for outcome in Outcome if night.count(outcome))
    sent = sum(product.uploaded for product in night.products)
    took = (night.ended - night.began) / 1000
    lines = [_product_line(product) for product in night.products]
    return [*lines, f"{len(night.products)} products in {took:.1f} s: {counts}; {size_text(sent)} uploaded"]


def _product_line(product: Product) -> str:
    version = f" {product.version}" if product.version else ""
    line = f"{product.outcome:<9} {product.name}{version}: {product.why}"
    if product.failure is not None:
        return f"{line} [{product.failure.code}]\n          again: {product.failure.command}"
    return line
