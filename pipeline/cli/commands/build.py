"""The `build` command: resolve, lock, fetch, layer, pack and test images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.build.remembered_build import BuildRequest
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.argument_values import recipe_values
from pipeline.cli.messages import print_error
from pipeline.cli.path_arguments import require_output
from pipeline.cli.progress_display import import_bars
from pipeline.cli.recipe_place import find_recipe_place, naming_files
from pipeline.cli.remembered_builds import name_of_build, repeat_build
from pipeline.errors import RecipeError, SmokeError, UsageError
from pipeline.model.archive_kind import ArchiveKind
from pipeline.model.lock import LockMode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.build import BuildResult
    from pipeline.cli.build_run import ToldBuild
    from pipeline.digest import Digest
    from pipeline.recipes.document_loading import DocumentLoading
    from pipeline.store import Store

# What builds is imported when something is built: to see that nothing changed takes a fraction of that.


@command(
    rank=10,
    in_user_namespace=True,
    reads_repositories=True,
    interrupted="nothing was published; what was fetched, packed and built stays in the store: run it again to go on",
)
def build_command(
    context: CommandContext,
    *,
    recipes: Annotated[
        list[str],
        typer.Argument(help="Recipes: files, or names in recipes/.", show_default=False, autocompletion=recipe_values),
    ],
    platform: options.PlatformOption,
    arch: options.ArchOption,
    repositories: options.RepositoriesOption,
    locked: Annotated[bool, typer.Option("--locked", help="Refuse to build if the lock is missing or stale.")] = False,
    upgrade: options.UpgradeOption,
    offline: options.OfflineOption,
    full: options.FullOption,
    no_smoke: Annotated[
        bool, typer.Option("--no-smoke", help="Do not test the image; it then cannot be published.")
    ] = False,
    retest: Annotated[bool, typer.Option("--retest", help="Test again even if this image already passed.")] = False,
    compression: options.CompressionOption,
    output: Annotated[
        options.OutputFolder, typer.Option(help="Where the layout and the report go.", envvar=options.OUTPUT_VARIABLE)
    ],
    with_sources: Annotated[
        bool, typer.Option("--with-sources", help="Also fetch the source packages, for `publish --with-sources`.")
    ] = False,
    archive: Annotated[ArchiveKind | None, typer.Option(help="Also write the image as one archive file.")] = None,
    runtime: options.RuntimeOption,
    launcher: options.LauncherOption,
) -> int:
    """Build images of recipes, and test them.

    Resolve, lock, fetch, verify, layer, run scriptlets, pack, launch, test.
    """
    if locked and upgrade:
        raise UsageError(
            "options-contradict", "--locked and --upgrade contradict each other", hint="give only one of them"
        )
    if no_smoke and (retest or full):
        raise UsageError(
            "options-contradict",
            f"--no-smoke and {'--retest' if retest else '--full'} contradict each other",
            hint="leave out --no-smoke to test the image",
        )
    requests = []
    for recipe in recipes:
        place = find_recipe_place(recipe, repositories)
        requests.append(
            BuildRequest(
                recipe=place.recipe,
                repositories=place.repositories,
                locks=place.locks,
                output=require_output(output),
                platform=platform,
                architectures=options.split_architectures(arch),
                mode=LockMode.LOCKED if locked else LockMode.UPGRADE if upgrade else LockMode.DEFAULT,
                compression=compression,
                smoke=not no_smoke,
                full=full,
                offline=offline,
                runtime=runtime,
            )
        )
    repeatable = not (upgrade or retest or with_sources or archive or launcher)
    store = context.open_store()
    built: list[dict[str, object]] = []
    indexes: list[dict[str, object]] = []
    failed: list[BuildResult] = []
    made_one = False
    for at, request in enumerate(requests):
        if at:
            context.finished.update({"built": built}, **({"indexes": indexes} if indexes else {}))
        name = name_of_build(request, context, store) if repeatable else None
        known = repeat_build(name, request, context, store) if name is not None else None
        if known is not None:
            built.append(dict(known.answer))
            continue
        if len(requests) > 1 and not made_one:
            _require_own_layouts(requests, context, store)
        with naming_files(request.recipe, request.repositories):
            made = _build(
                request,
                name,
                context,
                store,
                forked=len(requests) == 1,
                retest=retest,
                sources=with_sources,
                archive=archive,
                launcher=launcher,
            )
        made_one = True
        built += made.built
        indexes += made.indexes
        failed += made.failed
    context.answer({"built": built, **({"indexes": indexes} if indexes else {})})
    if failed:
        names = ", ".join(one.layout.name for one in failed)
        hint = f"see {failed[0].report_folder}/ for the check results and the containers' logs"
        return print_error(SmokeError("smoke-failed", f"smoke test failed: {names}", hint=hint))
    return 0


def _require_own_layouts(requests: Sequence[BuildRequest], context: CommandContext, store: Store) -> None:
    """Refuse several recipes of one product, parents included.

    The layout of one would replace the other's. The first is read by a child, beside imports. Raises RecipeError
    `name-twice`, and as `load_recipe` and `find_platform`.
    """
    from pipeline.recipes import PlatformTarget, load_recipe, loading_documents
    from pipeline.snapshots import process_started

    started = process_started(context.clock())
    files: dict[str, Path] = {}
    for at, request in enumerate(requests):
        target = PlatformTarget(request.repositories, request.platform)
        with (
            naming_files(request.recipe, request.repositories),
            loading_documents(request.recipe, target, store, started=started, forked=at == 0) as documents,
        ):
            _import_beside(documents, context)
            documents.finish()
            recipe = load_recipe(request.recipe, target)
        written = [(recipe.name, request.recipe)]
        while request.smoke and recipe.parent is not None:
            recipe = recipe.parent
            written.append((recipe.name, recipe.path))
        for name, path in written:
            other = files.setdefault(name, path)
            if other.resolve() != path.resolve():
                raise RecipeError(
                    "name-twice",
                    f"several recipes have the name '{name}': {other}, {path}",
                    place=str(path),
                    hint="build them one by one, each with its own --output, or rename one",
                )


def _build(
    request: BuildRequest,
    name: Digest | None,
    context: CommandContext,
    store: Store,
    *,
    forked: bool,
    retest: bool,
    sources: bool,
    archive: ArchiveKind | None,
    launcher: str | None,
) -> ToldBuild:
    """Load what builds while the recipe is read, and build.

    The recipe is read by a child of this process if `forked`: not where there may be threads, or pipes to others.
    """
    from pipeline.recipes import PlatformTarget, loading_documents
    from pipeline.snapshots import process_started

    started = process_started(context.clock())  # Not the request's: all are built by the code that the command loads.
    target = PlatformTarget(request.repositories, request.platform)
    with loading_documents(request.recipe, target, store, started=started, forked=forked) as documents:
        from pipeline.cli.build_run import run_build

        _import_beside(documents, context)
        return run_build(
            request,
            name,
            context,
            documents,
            started=started,
            retest=retest,
            sources=sources,
            archive=archive,
            launcher=launcher,
        )


def _import_beside(documents: DocumentLoading, context: CommandContext) -> None:
    """Import what builds while a child reads the recipe."""
    from pipeline.build.early_imports import import_early

    import_bars(context.progress)
    import_early(lambda: documents.is_running)
