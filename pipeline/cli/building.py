"""Commands that make images and look into them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.build import Built, build, explain_package, lock
from pipeline.cli.command import (
    ArchOption,
    FullOption,
    JsonOption,
    OfflineOption,
    PlatformOption,
    ProgressOption,
    RecipeArgument,
    RepositoriesOption,
    RuntimeOption,
    StoreOption,
    Surroundings,
    answer,
    app,
    order,
    perform,
    say,
    tell,
)
from pipeline.cli.progress import Look, size_text
from pipeline.cli.summary import (
    built_as_json,
    built_as_lines,
    locked_as_json,
    locked_as_lines,
)
from pipeline.compression import Compression
from pipeline.errors import SmokeError, UsageError
from pipeline.escaping import visible
from pipeline.oci import ArchiveKind, write_archive
from pipeline.resolve import Mode


@app.command("build")
def build_command(
    recipes: Annotated[list[str], typer.Argument(help="Recipes: files, or names in recipes/.", show_default=False)],
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    locked: Annotated[bool, typer.Option("--locked", help="Refuse to build if the lock is missing or stale.")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Resolve anew even if the lock is fresh.")] = False,
    offline: OfflineOption = False,
    full: FullOption = False,
    no_smoke: Annotated[
        bool, typer.Option("--no-smoke", help="Do not launch the image; it counts as untested.")
    ] = False,
    retest: Annotated[bool, typer.Option("--retest", help="Launch again even if this image already passed.")] = False,
    compression: Annotated[Compression, typer.Option(help="How layers are compressed.")] = Compression.GZIP,
    output: Annotated[Path, typer.Option(help="Where the layout and the report go.")] = Path("output"),
    with_sources: Annotated[
        bool, typer.Option("--with-sources", help="Fetch the source packages too, for `publish --with-sources`.")
    ] = False,
    archive: Annotated[ArchiveKind | None, typer.Option(help="Also write one file to hand on.")] = None,
    runtime: RuntimeOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Build images: resolve, lock, fetch, verify, layer, run scriptlets, pack, launch, test."""

    def act(around: Surroundings) -> int:
        if locked and upgrade:
            raise UsageError("options-contradict", "--locked and --upgrade contradict each other", hint="give one")
        mode = Mode.LOCKED if locked else Mode.UPGRADE if upgrade else Mode.DEFAULT
        orders = [
            order(
                name,
                platform,
                arch,
                repositories,
                mode=mode,
                smoke=not no_smoke,
                retest=retest,
                compression=compression,
                output=output,
                full=full,
                sources=with_sources,
            )
            for name in recipes
        ]
        workshop = around.workshop(store, offline=offline, runtime=runtime)
        results: list[Built] = []
        for one in orders:
            built = build(one, workshop)
            if archive is not None:
                target = output / f"{built.image.name}.{archive}.tar"
                write_archive(built.layout, target, archive)
                say(f"wrote {target} ({size_text(target.stat().st_size)})")
            say(*built_as_lines(built))
            results.append(built)
        if around.as_json:
            answer({"built": [built_as_json(built) for built in results]})
        failed = [built for built in results if built.report is not None and not built.report.passed]
        if failed:
            names = ", ".join(built.image.name for built in failed)
            hint = f"see {failed[0].report_folder}/ for the answers and the containers' logs"
            return tell(SmokeError("smoke-failed", f"did not pass: {names}", hint=hint))
        return 0

    perform(act, progress, as_json)


@app.command("lock")
def lock_command(
    recipe: RecipeArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if the lock is missing or stale.")
    ] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Resolve anew even if the lock is fresh.")] = False,
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    offline: OfflineOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Resolve only, write the lock, and show what changed."""

    def act(around: Surroundings) -> int:
        mode = Mode.LOCKED if check else Mode.UPGRADE if upgrade else Mode.DEFAULT
        locked = lock(
            order(recipe, platform, arch, repositories, mode=mode, smoke=False), around.workshop(store, offline=offline)
        )
        say(*locked_as_lines(locked))
        if around.as_json:
            answer(locked_as_json(locked))
        return 0

    perform(act, progress, as_json)


@app.command("explain")
def explain_command(
    recipe: RecipeArgument,
    package: Annotated[str, typer.Argument(help="A package's name.", show_default=False)],
    platform: PlatformOption = None,
    arch: ArchOption = None,
    repositories: RepositoriesOption = None,
    offline: OfflineOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = Look.AUTO,
) -> None:
    """Say why a package is in the image."""

    def act(around: Surroundings) -> int:
        text = explain_package(
            order(recipe, platform, arch, repositories), around.workshop(store, offline=offline), package
        )
        if around.as_json:
            answer({"package": package, "explanation": text})
        else:
            print(visible(text))
        return 0

    perform(act, progress, as_json)
