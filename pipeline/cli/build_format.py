"""Formatting of a build's results as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.build import BuildResult, IndexResult
from pipeline.cli.image_format import image_as_json, parent_as_json
from pipeline.cli.progress_display import bytes_text
from pipeline.smoke import report_lines

_CHANGES_SHOWN = 20


def index_lines(made: IndexResult) -> Iterator[str]:
    """Format an index of several images for people."""
    assert made.index is not None
    yield ""
    yield f"{made.members[0].image.name} {made.members[0].image.reference}  {made.index.descriptor.digest}"
    architectures = ", ".join(built.image.config.architecture for built in made.members)
    yield f"  an index of {len(made.members)} images: {architectures}"
    yield f"  layout: {made.layout}"


def index_json(made: IndexResult) -> dict[str, object]:
    """Format an index of several images as JSON values."""
    assert made.index is not None
    return {
        "name": made.members[0].image.name,
        "digest": str(made.index.descriptor.digest),
        "layout": str(made.layout),
        "images": [str(built.image.digest) for built in made.members],
    }


def build_lines(built: BuildResult, *, verbose: bool, took: str | None = None) -> Iterator[str]:
    """Format a result for people: three lines if nothing changed, unless they want all of it.

    `took` is shown in place of the seconds that it took.
    """
    image = built.image
    compressed = sum(layer.blob.size for layer in image.layers)
    unpacked = sum(layer.tar_size for layer in image.layers)
    yield ""
    architecture = f" ({image.config.architecture})" if built.member else ""
    yield f"{image.name} {image.reference}{architecture}  {image.digest}"
    took = took or f"{built.took:.1f}"
    contents = f"{len(built.locked.all_chosen)} packages in {len(image.layers)} layers"
    if not verbose and built.unchanged and built.report is not None:
        checks = sum(len(one.checks) for one in built.report.instances)
        yield f"  unchanged: {contents}, {bytes_text(compressed)}; passed {checks} checks before; in {took} s"
        yield f"  layout: {built.layout}   report: {built.report_folder}   (-v shows all, --retest tests again)"
        return
    yield f"  {contents}, {bytes_text(compressed)} compressed, {bytes_text(unpacked)} unpacked, in {took} s"
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


def result_json(built: BuildResult) -> dict[str, object]:
    """Format a result as JSON values."""
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
