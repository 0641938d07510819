"""The `diff` command: show the differences between two images."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.path_arguments import built_layout
from pipeline.cli.progress_display import bytes_text
from pipeline.mirror.address import Address
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.model.comparison import (
    ComparedLayer,
    Comparison,
    FileDifference,
    ImageComparison,
    PackageDifference,
    SettingDifference,
)
from pipeline.model.tree import Entry, EntryKind
from pipeline.release import compare_images
from pipeline.trees import CAPABILITY_XATTR, capability_text

_SHOWN = 40
"""Packages, settings and files of each kind that a terminal shows; --json has all."""

_ENTRIES_SHOWN = 3
"""Changelog entries of a package, and lines of each, that a terminal shows."""


@command(rank=70)
def diff_command(
    context: CommandContext,
    *,
    old: Annotated[
        str,
        typer.Argument(
            help="The earlier image: an OCI layout, a name in --output, or a reference on a mirror.",
            show_default=False,
        ),
    ],
    new: Annotated[str, typer.Argument(help="The later image, given likewise.", show_default=False)],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ in any byte.")] = False,
    arch: options.IndexArchOption,
    output: options.LayoutsOption,
) -> int:
    """Say what differs between two images.

    Packages, configuration, files, layers, size.
    """
    found = compare_images(_subject(old, output), _subject(new, output), context.build_env(), arch=arch)
    context.show(_lines(found), _json(found))
    return int(exit_code and not found.same)


def _subject(name: str, output: Path) -> Address | Path:
    if is_address(name):
        return parse_address(name)
    return built_layout(name, output)


# --- for people ------------------------------------------------------------------------------------------


def _lines(found: Comparison) -> Iterator[str]:
    if found.same:
        yield f"identical: {found.before}"
        return
    for number, image in enumerate(found.images):
        if number:
            yield ""
        yield from _image(image)
    yield from (f"only the earlier index has {one}" for one in found.only_before)
    yield from (f"only the later index has {one}" for one in found.only_after)


def _image(image: ImageComparison) -> Iterator[str]:
    yield f"{image.references[0]} → {image.references[1]}  ({image.platform})"
    yield f"  {image.before}"
    yield f"  {image.after}"
    if image.before == image.after:
        yield "  identical"
        return
    yield f"  packages: {_counts(image.packages) if image.packages is not None else 'neither has an RPM database'}"
    yield from _some([list(_package(one)) for one in image.packages or ()], "packages")
    yield f"  configuration: {_counts(image.settings)}"
    yield from _some([[_setting(one)] for one in image.settings], "settings")
    in_time = f"; {image.touched} more differ only in modification time" if image.touched else ""
    yield f"  files: {_counts(image.files)}{in_time}"
    yield from _some([[_file(one)] for one in image.files], "files")
    yield "  layers, lowest first"
    yield from (f"    {_layer(one)}" for one in image.layers)
    before, after = image.weights
    yield (
        f"  size: {bytes_text(after.compressed)} compressed ({_grown(before.compressed, after.compressed)}), "
        f"{bytes_text(after.content)} of files ({_grown(before.content, after.content)})"
    )
    yield f"  a client with the earlier image downloads {bytes_text(image.download)}"


def _counts(
    found: tuple[PackageDifference, ...] | tuple[SettingDifference, ...] | tuple[FileDifference, ...],
) -> str:
    added = sum(one.before is None for one in found)
    removed = sum(one.after is None for one in found)
    return f"{len(found) - added - removed} changed, {added} added, {removed} removed" if found else "no difference"


def _some(groups: list[list[str]], what: str) -> Iterator[str]:
    yield from (f"    {line}" for group in groups[:_SHOWN] for line in group)
    if len(groups) > _SHOWN:
        yield f"    … and {len(groups) - _SHOWN} more {what} (--json has all)"


def _package(one: PackageDifference) -> Iterator[str]:
    name = f"{one.name}.{one.arch}" if one.arch else one.name
    if one.before is None or one.after is None:
        yield f"+ {name} {one.after.evr}" if one.after else f"- {name} {one.before.evr if one.before else ''}"
        return
    yield f"~ {name} {one.before.evr} → {one.after.evr}" + (f"  mentions {', '.join(one.fixes)}" if one.fixes else "")
    for entry in one.changelog[:_ENTRIES_SHOWN]:
        lines = [line for line in entry.text.splitlines() if line.strip()]
        yield f"    {datetime.fromtimestamp(entry.time, UTC):%Y-%m-%d}  {entry.name}"
        yield from (f"      {line}" for line in lines[:_ENTRIES_SHOWN])
        if len(lines) > _ENTRIES_SHOWN:
            yield f"      … {len(lines) - _ENTRIES_SHOWN} more lines"
    if len(one.changelog) > _ENTRIES_SHOWN:
        yield f"    … {len(one.changelog) - _ENTRIES_SHOWN} more entries"


def _setting(one: SettingDifference) -> str:
    if one.before is None:
        return f"+ {one.name}: {one.after}"
    return f"- {one.name}: {one.before}" if one.after is None else f"~ {one.name}: {one.before} → {one.after}"


def _file(one: FileDifference) -> str:
    entry = one.after or one.before
    assert entry is not None
    shown = _path(one.path)
    if one.before is None or one.after is None:
        return f"{'-' if one.after is None else '+'} {shown}  {_described(entry)}"
    before, after = one.before, one.after
    if before.kind is not after.kind:
        return f"~ {shown}  {_described(before)} → {_described(after)}"
    words = []
    if "content" in one.what:
        words.append(
            f"content ({bytes_text(before.size)} → {bytes_text(after.size)})"
            if before.size != after.size
            else f"content ({bytes_text(after.size)})"
        )
    if "mode" in one.what:
        words.append(f"mode {before.mode:04o} → {after.mode:04o}")
    if "uid" in one.what or "gid" in one.what:
        words.append(f"owner {before.uid}:{before.gid} → {after.uid}:{after.gid}")
    if "link" in one.what:
        words.append(f"target {_shown(before.link)} → {_shown(after.link)}")
    if "device" in one.what:
        words.append(f"device {before.device} → {after.device}")
    if "xattrs" in one.what:
        words.append(f"attributes {_attributes(before)} → {_attributes(after)}")
    return f"~ {shown}  {', '.join(words)}"


def _described(entry: Entry) -> str:
    size = f" {bytes_text(entry.size)}" if entry.kind is EntryKind.FILE else ""
    link = (
        f" → {_shown(entry.link)}" if entry.kind is EntryKind.SYMLINK else f" {entry.mode:04o} {entry.uid}:{entry.gid}"
    )
    return f"{entry.kind}{size}{link}"


def _attributes(entry: Entry) -> str:
    return ", ".join(f"{name}={value}" for name, value in _attribute_values(entry).items()) or "none"


def _attribute_values(entry: Entry) -> dict[str, str]:
    return {
        name: capability_text(value) if name == CAPABILITY_XATTR else f"0x{value.hex()}" for name, value in entry.xattrs
    }


def _layer(one: ComparedLayer) -> str:
    return f"{'=' if one.shared else '+'} {one.name:<10} {bytes_text(one.size):>9}  {one.digest.short}" + (
        "  shared" if one.shared else "  new"
    )


def _grown(before: int, after: int) -> str:
    return f"{'+' if after >= before else '-'}{bytes_text(abs(after - before))}"


def _path(path: str) -> str:
    return f"/{_shown(path)}"


def _shown(text: str) -> str:
    """Escape bytes that are no UTF-8, for output and JSON."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


# --- for programs ----------------------------------------------------------------------------------------


def _json(found: Comparison) -> dict[str, object]:
    return {
        "before": str(found.before),
        "after": str(found.after),
        "same": found.same,
        "images": [_image_json(image) for image in found.images],
        "only_before": list(found.only_before),
        "only_after": list(found.only_after),
    }


def _image_json(image: ImageComparison) -> dict[str, object]:
    before, after = image.weights
    return {
        "platform": image.platform,
        "before": str(image.before),
        "after": str(image.after),
        "packages": None if image.packages is None else [_package_json(one) for one in image.packages],
        "configuration": [{"name": one.name, "before": one.before, "after": one.after} for one in image.settings],
        "files": [_file_json(one) for one in image.files],
        "touched": image.touched,
        "layers": [_layer_json(one) for one in image.layers],
        "dropped_layers": [_layer_json(one) for one in image.dropped],
        "download": image.download,
        "size": {
            "compressed": {"before": before.compressed, "after": after.compressed},
            "content": {"before": before.content, "after": after.content},
        },
    }


def _package_json(one: PackageDifference) -> dict[str, object]:
    return {
        "name": one.name,
        "arch": one.arch,
        "before": one.before.evr if one.before else None,
        "after": one.after.evr if one.after else None,
        "changelog": [{"time": entry.time, "name": entry.name, "text": entry.text} for entry in one.changelog],
        "fixes": list(one.fixes),
    }


def _file_json(one: FileDifference) -> dict[str, object]:
    return {
        "path": _path(one.path),
        "what": list(one.what),
        "before": _entry_json(one.before),
        "after": _entry_json(one.after),
    }


def _entry_json(entry: Entry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    return {
        "kind": str(entry.kind),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime,
        **({"target": _shown(entry.link)} if entry.link else {}),
        **({"digest": str(entry.content)} if entry.content else {}),
        **({"attributes": _attribute_values(entry)} if entry.xattrs else {}),
    }


def _layer_json(one: ComparedLayer) -> dict[str, object]:
    return {"name": one.name, "digest": str(one.digest), "size": one.size, "shared": one.shared}
