"""The `show` command: print or list files of an image."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.app import CommandContext, command
from pipeline.cli.path_arguments import built_layout
from pipeline.cli.progress_display import ProgressStyle
from pipeline.cli.recipe_argument import layout_image
from pipeline.escaping import escape_invisible
from pipeline.layers import ImageFiles
from pipeline.mirror.address_parser import is_address, parse_address
from pipeline.model.tree import Entry, EntryKind
from pipeline.prepare import BuildEnvironment
from pipeline.release import open_image_files

SHOWN_FILE_LIMIT = 64 << 20
"""Bytes of a file that is printed: larger than any that a person reads."""


@command(rank=41, progress=ProgressStyle.NONE)
def show_command(
    context: CommandContext,
    *,
    image: options.ImageArgument,
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files and folders in the image (default: /).", show_default=False)
    ] = None,
    arch: options.IndexArchOption,
    output: options.LayoutsOption,
) -> int:
    """Print files of an image, or list a folder.

    Nothing is unpacked or launched. A reference is read on its mirror; `verify` checks its signatures.
    """
    build_env = context.build_env()
    values: list[dict[str, object]] = []
    with _opened(image, arch, output, build_env) as files:
        for path in paths or ["/"]:
            entry = files.find(path)
            if entry is not None and entry.kind is EntryKind.DIRECTORY:
                inside = files.list_folder(path)
                values.append({"path": path, "entries": [_json(one) for one in inside]})
                if not context.as_json:
                    print("\n".join(escape_invisible(_line(one), lines=False) for one in inside))
            else:
                entry, data = files.read(path, SHOWN_FILE_LIMIT)
                values.append({**_json(entry), "content": data.decode(errors="replace")})
                if not context.as_json:
                    _print(data)
    context.answer(values)
    return 0


@contextlib.contextmanager
def _opened(image: str, arch: str, output: Path, build_env: BuildEnvironment) -> Iterator[ImageFiles]:
    """Open an image's files: of a reference, a layout, or a layout's name in the output."""
    if is_address(image):
        with open_image_files(parse_address(image), arch, build_env) as files:
            yield files
    else:
        layout = built_layout(image, output)
        yield ImageFiles(layout_image(layout, build_env, arch), build_env.store)


def _print(data: bytes) -> None:
    """Print a file: as it is for a program, without control characters for a terminal."""
    if sys.stdout.isatty():
        print(escape_invisible(data.decode(errors="replace")), end="")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _line(entry: Entry) -> str:
    target = f" → {entry.link}" if entry.kind is EntryKind.SYMLINK else ""
    name = entry.path.rpartition("/")[2] + ("/" if entry.kind is EntryKind.DIRECTORY else "")
    return f"{entry.mode:04o}  {entry.uid:>5} {entry.gid:>5}  {entry.size:>10}  {name}{target}"


def _json(entry: Entry) -> dict[str, object]:
    return {
        "path": f"/{entry.path}",
        "kind": str(entry.kind),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "link": entry.link or None,
    }
