"""The `build` command: resolve, lock, fetch, layer, pack and test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.build import BuildResult, IndexResult, build_architectures
from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.argument_values import recipe_values
from pipeline.cli.image_format import image_as_json, parent_as_json
from pipeline.cli.messages import print_error, print_lines
from pipeline.cli.progress_display import bytes_text
from pipeline.cli.recipe_argument import build_options
from pipeline.errors import SmokeError, UsageError
from pipeline.oci import ArchiveKind, write_archive
from pipeline.resolve import LockMode
from pipeline.smoke import report_lines

_CHANGES_SHOWN = 20


@command(rank=10, in_user_namespace=True, reads_repositories=True)
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
) -> int:
    """Build images of recipes, and test them.

    Resolve, lock, fetch, verify, layer, run scriptlets, pack, launch, test.
    """
    if locked and upgrade:
        raise UsageError(
            "options-contradict", "--locked and --upgrade contradict each other", hint="give only one of them"
        )
    orders = [
        build_options(
            name,
            platform,
            arch,
            repositories,
            mode=LockMode.LOCKED if locked else LockMode.UPGRADE if upgrade else LockMode.DEFAULT,
            smoke=not no_smoke,
            retest=retest,
            compression=compression,
            output=output,
            full=full,
            sources=with_sources,
        )
        for name in recipes
    ]
    build_env = context.build_env(offline=offline, runtime=runtime)
    results: list[BuildResult] = []
    indexes: list[IndexResult] = []
    for one in orders:
        made = build_architectures(one, build_env)
        for built in made.members:
            if archive is not None:
                target = output / f"{built.layout.name}.{archive}.tar"
                write_archive(built.layout, target, archive)
                print_lines(f"wrote {target} ({bytes_text(target.stat().st_size)})")
            print_lines(*build_lines(built, verbose=context.verbose))
            results.append(built)
        if made.index is not None:
            print_lines(*_index_lines(made))
            indexes.append(made)
    answer: dict[str, object] = {"built": [_json(built) for built in results]}
    context.answer({**answer, **({"indexes": [_index_json(made) for made in indexes]} if indexes else {})})
    failed = [built for built in results if built.report is not None and not built.report.passed]
    if failed:
        names = ", ".join(built.layout.name for built in failed)
        hint = f"see {failed[0].report_folder}/ for the check results and the containers' logs"
        return print_error(SmokeError("smoke-failed", f"smoke test failed: {names}", hint=hint))
    return 0


def _index_lines(made: IndexResult) -> Iterator[str]:
    assert made.index is not None
    yield ""
    yield f"{made.members[0].image.name} {made.members[0].image.reference}  {made.index.descriptor.digest}"
    architectures = ", ".join(built.image.config.architecture for built in made.members)
    yield f"  an index of {len(made.members)} images: {architectures}"
    yield f"  layout: {made.layout}"


def _index_json(made: IndexResult) -> dict[str, object]:
    assert made.index is not None
    return {
        "name": made.members[0].image.name,
        "digest": str(made.index.descriptor.digest),
        "layout": str(made.layout),
        "images": [str(built.image.digest) for built in made.members],
    }


def build_lines(built: BuildResult, *, verbose: bool) -> Iterator[str]:
    """Format a result for people: three lines if nothing changed, unless they want all of it."""
    image = built.image
    compressed = sum(layer.blob.size for layer in image.layers)
    unpacked = sum(layer.tar_size for layer in image.layers)
    yield ""
    architecture = f" ({image.config.architecture})" if built.member else ""
    yield f"{image.name} {image.reference}{architecture}  {image.digest}"
    contents = f"{len(built.locked.all_chosen)} packages in {len(image.layers)} layers"
    if not verbose and built.unchanged and built.report is not None:
        checks = sum(len(one.checks) for one in built.report.instances)
        yield f"  unchanged: {contents}, {bytes_text(compressed)}; passed {checks} checks before; in {built.took:.1f} s"
        yield f"  layout: {built.layout}   report: {built.report_folder}   (-v shows all, --retest tests again)"
        return
    yield f"  {contents}, {bytes_text(compressed)} compressed, {bytes_text(unpacked)} unpacked, in {built.took:.1f} s"
    if (parent := built.locked.parent) is not None:
        yield f"  from {parent.name} {parent.digest} ({len(parent.packages)} fixed packages)"
    for layer in image.layers:
        mark = "reused" if layer.name in built.reused else "made"
        yield f"    {layer.name:<10} {bytes_text(layer.blob.size):>9}  {layer.blob.digest.short}  {mark}"
    if built.locked.wrote:
        yield f"  lock: wrote {built.locked.path} ({'; '.join(built.locked.why) or 'account IDs'})"
        if not built.locked.first:
            yield from (f"    {line}" for line in built.locked.changes[:_CHANGES_SHOWN])
            more = len(built.locked.changes) - _CHANGES_SHOWN
            if more > 0:
                yield f"    … and {more} more: `git diff {built.locked.path}` shows all"
    yield f"  layout: {built.layout}   report: {built.report_folder}"
    if built.changes:
        yield f"  {len(built.changes)} package files were changed by scriptlets or the recipe: see the report"
    if built.failed_scriptlets:
        yield f"  {len(built.failed_scriptlets)} scriptlets failed and were let through: see the report"
    report = built.report
    if report is None:
        yield "  NOT TESTED (--no-smoke): this image cannot be published"
        return
    if built.verdict_reused:
        yield "  smoke test: passed earlier for this digest, not repeated (--retest repeats it):"
    yield from (f"  {line}" for line in report_lines(report))


def _json(built: BuildResult) -> dict[str, object]:
    report = built.report
    return {
        **image_as_json(built.image),
        **parent_as_json(built.locked.parent),
        "layout": str(built.layout),
        "report": str(built.report_folder),
        "lock": {
            "path": str(built.locked.path),
            "wrote": built.locked.wrote,
            "changes": list(built.locked.changes),
        },
        "reused": list(built.reused),
        "failed_scriptlets": [one.sentence for one in built.failed_scriptlets],
        "tested": report is not None,
        "passed": report.passed if report is not None else None,
        "emulator": (report.emulator or None) if report is not None else None,
        "verdict_reused": built.verdict_reused,
        "took_ms": round(built.took * 1000),
    }
