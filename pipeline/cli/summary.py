"""Outcomes as lines for people and as values for `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from pipeline.build import Built
from pipeline.cli.progress import size_text
from pipeline.gather import Locked
from pipeline.model.image import Image, ImageConfig
from pipeline.model.image_keys import IMAGE_KEYS, ImageKey, KeyForm
from pipeline.model.parent import ParentImage
from pipeline.oci import end_of_life
from pipeline.sandbox import Finding
from pipeline.smoke import report_lines

_CHANGES_SHOWN = 20


def built_as_lines(built: Built) -> tuple[str, ...]:
    """The summary at the end of a build."""
    return tuple(_built(built))


def _built(built: Built) -> Iterator[str]:
    image = built.image
    compressed = sum(layer.blob.size for layer in image.layers)
    unpacked = sum(layer.tar_size for layer in image.layers)
    yield ""
    yield f"{image.name} {image.reference}  {image.digest}"
    yield (
        f"  {len(built.locked.all_chosen)} packages in {len(image.layers)} layers, "
        f"{size_text(compressed)} compressed, {size_text(unpacked)} unpacked, in {built.took:.1f} s"
    )
    if built.locked.parent is not None:
        yield f"  from {_parent(built.locked.parent)}"
    for layer in image.layers:
        mark = "reused" if layer.name in built.reused else "made"
        yield f"    {layer.name:<10} {size_text(layer.blob.size):>9}  {layer.diff_id.short}  {mark}"
    if built.locked.wrote:
        yield f"  lock: wrote {built.locked.path} ({'; '.join(built.locked.why) or 'account numbers'})"
        if not built.locked.first:
            yield from (f"    {line}" for line in built.locked.changes[:_CHANGES_SHOWN])
            more = len(built.locked.changes) - _CHANGES_SHOWN
            if more > 0:
                yield f"    … and {more} more: `git diff {built.locked.path}` shows all"
    yield f"  layout: {built.layout}   report: {built.report_folder}"
    if built.changes:
        yield f"  {len(built.changes)} package files were changed by scriptlets or the recipe: see the report"
    report = built.report
    if report is None:
        yield "  NOT TESTED (--no-smoke): this image cannot be published"
        return
    if built.verdict_reused:
        yield "  the verdict on this very image is kept from before (--retest asks again):"
    yield from (f"  {line}" for line in report_lines(report))


def _parent(parent: ParentImage) -> str:
    return f"{parent.name} {parent.digest}, whose {len(parent.packages)} packages are fixed"


def _parent_as_json(locked: Locked) -> dict[str, object]:
    if locked.parent is None:
        return {}
    return {"parent": {"recipe": locked.parent.name, "digest": str(locked.parent.digest)}}


def built_as_json(built: Built) -> dict[str, object]:
    """The outcome of a build."""
    report = built.report
    return {
        **image_as_json(built.image),
        **_parent_as_json(built.locked),
        "layout": str(built.layout),
        "report": str(built.report_folder),
        "lock": {
            "path": str(built.locked.path),
            "wrote": built.locked.wrote,
            "changes": list(built.locked.changes),
        },
        "reused": list(built.reused),
        "tested": report is not None,
        "passed": report.passed if report is not None else None,
        "verdict_reused": built.verdict_reused,
        "took_ms": round(built.took * 1000),
    }


def image_as_lines(image: Image) -> tuple[str, ...]:
    """An image for people."""
    config = image.config
    lines = [
        f"{image.name} {image.reference}",
        f"  digest       {image.digest}",
        f"  platform     {config.os}/{config.architecture}{config.variant and '/' + config.variant}",
        *(f"  {key.shown:<12} {text}" for key in IMAGE_KEYS if key.shown for text in _shown(key, config)),
    ]
    if ends := end_of_life(image.manifest_bytes):
        lines.append(f"  end of life  {ends}")
    for layer in image.layers:
        lines.append(f"  layer        {layer.blob.digest} {size_text(layer.blob.size)} {layer.name}")
    return tuple(lines)


def _shown(key: ImageKey, config: ImageConfig) -> tuple[str, ...]:
    """The value of a setting in words; one text for each of values by name."""
    value = getattr(config, key.name)
    match key.form:
        case KeyForm.VARIABLES:
            return tuple(value)
        case KeyForm.LABELS:
            return tuple(f"{name}={text}" for name, text in value)
        case KeyForm.WORDS:
            return (" ".join(value) or key.unset,)
        case KeyForm.PORTS | KeyForm.PATHS:
            return (", ".join(value) or key.unset,)
        case KeyForm.USER | KeyForm.FOLDER | KeyForm.SIGNAL:
            return (value or key.unset,)
        case other:
            assert_never(other)


def image_as_json(image: Image) -> dict[str, object]:
    """An image as a value."""
    return {
        "name": image.name,
        "reference": image.reference,
        "digest": str(image.digest),
        "architecture": image.config.architecture,
        "end_of_life": end_of_life(image.manifest_bytes) or None,
        "layers": [
            {
                "name": layer.name,
                "digest": str(layer.blob.digest),
                "diff_id": str(layer.diff_id),
                "media_type": layer.blob.media_type,
                "size": layer.blob.size,
                "packages": list(layer.contents),
            }
            for layer in image.layers
        ],
    }


def locked_as_lines(locked: Locked) -> tuple[str, ...]:
    """Format the result of `relbuild lock` as lines for people."""
    count = str(len(locked.section.resolution.chosen))
    if locked.parent is not None:
        count = f"besides the {len(locked.parent.packages)} of the parent image '{locked.parent.name}', {count}"
    if not locked.wrote:
        return (f"{locked.path} is fresh: {count} packages",)
    return (
        f"wrote {locked.path}: {count} packages ({'; '.join(locked.why) or 'account numbers'})",
        *locked.changes,
    )


def locked_as_json(locked: Locked) -> dict[str, object]:
    """The same as a value."""
    return {
        "path": str(locked.path),
        "wrote": locked.wrote,
        "why": list(locked.why),
        "changes": list(locked.changes),
        "packages": [str(chosen.package.nevra) for chosen in locked.section.resolution.chosen],
        **_parent_as_json(locked),
    }


def environment_as_lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Format the findings of `relbuild doctor` as lines for people."""
    width = max(len(finding.name) for finding in findings)
    return tuple(
        f"{'✓' if finding.ok else '✗'} {finding.name:<{width}}  {finding.detail}"
        + ("" if finding.ok else f"  (needed for {finding.needed_for})")
        for finding in findings
    )
