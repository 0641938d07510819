"""Build what a request asks for, tell its results, and remember it for the next time."""

from __future__ import annotations

from dataclasses import replace

from pipeline.beneath import logged_reads
from pipeline.build import BuildResult, build_architectures
from pipeline.build.remembered_build import BuildRequest
from pipeline.cli.app import CommandContext
from pipeline.cli.build_format import build_lines, index_json, index_lines, result_json
from pipeline.cli.messages import print_lines
from pipeline.cli.progress_display import bytes_text
from pipeline.cli.recipe_place import with_check_paths
from pipeline.cli.remembered_builds import WarningLog, remember_result
from pipeline.compression import Compression
from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.archive_kind import ArchiveKind
from pipeline.model.lock import LockMode
from pipeline.oci import write_archive
from pipeline.prepare import BuildOptions
from pipeline.recipes import DocumentLoading


@dataclass(frozen=True, slots=True)
class ToldBuild:
    """The results of one request as JSON values, and those that did not pass."""

    built: tuple[dict[str, object], ...]
    indexes: tuple[dict[str, object], ...]
    failed: tuple[BuildResult, ...]


def run_build(
    request: BuildRequest,
    name: Digest | None,
    context: CommandContext,
    documents: DocumentLoading,
    *,
    started: float,
    retest: bool,
    sources: bool,
    archive: ArchiveKind | None,
    launcher: str | None = None,
) -> ToldBuild:
    """Build a request and tell the results; remember it under `name`, if given.

    `documents` are those of its recipe. `started`: when this process began, in seconds since the epoch. Raises
    RelbuildError.
    """
    build_env = context.build_env(offline=request.offline, runtime=request.runtime, launcher=launcher)
    warned = WarningLog(build_env.progress)
    build_env = replace(build_env, progress=warned)
    options = _options(request, retest=retest, sources=sources)
    with logged_reads(context.clock) as log:
        documents.finish()
        made = build_architectures(options, build_env)
    for built in made.members:
        if archive is not None:
            target = request.output / f"{built.layout.name}.{archive}.tar"
            write_archive(built.layout, target, archive)
            print_lines(f"wrote {target} ({bytes_text(target.stat().st_size)})")
        print_lines(*build_lines(_with_paths(built, request), verbose=context.verbose))
        if name is not None:
            remember_result(name, built, options, build_env, log=log, warnings=warned.warnings, started=started)
    if made.index is not None:
        print_lines(*index_lines(made))
    return ToldBuild(
        tuple(result_json(built) for built in made.members),
        (index_json(made),) if made.index is not None else (),
        tuple(built for built in made.members if built.report is not None and not built.report.passed),
    )


def _with_paths(built: BuildResult, request: BuildRequest) -> BuildResult:
    """Return a result whose failed checks are told with the paths of their files, as errors are."""
    tested = built.tested
    if tested is None or tested.report.passed:
        return built
    report = with_check_paths(tested.report, request.recipe, request.repositories)
    return replace(built, tested=replace(tested, report=report))


def _options(request: BuildRequest, *, retest: bool, sources: bool) -> BuildOptions:
    return BuildOptions(
        recipe=request.recipe,
        repositories=request.repositories,
        platform=request.platform,
        architectures=request.architectures,
        mode=LockMode(request.mode),
        smoke=request.smoke,
        retest=retest,
        compression=Compression(request.compression),
        output=request.output,
        full=request.full,
        sources=sources,
        locks=request.locks,
    )
