"""Resolve path arguments: output folder, key file, platforms file, OCI layout."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.errors import UsageError

_LAYOUT_HINT = "build it first with `relbuild build`, name a layout or a reference on a mirror, or another --output"


def path_parser(option: str, *, resolve: bool = False) -> Callable[[str | Path], Path]:
    """Return a function that parses the path of an option or argument.

    `resolve`: the path is made absolute and free of links. It raises UsageError `option-malformed` for an empty one.
    """

    def path(text: str | Path) -> Path:  # Its name is the value's in the help.
        if not str(text):
            raise UsageError("option-malformed", f"{option} is empty", hint="give a path; '.' is this folder")
        return Path(os.path.realpath(text)) if resolve else Path(text)

    return path


def require_folder(path: Path) -> Path:
    """Return `path` if it is a directory, or can be created as one.

    Raises UsageError `not-a-directory`.
    """
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), path)
    if os.path.lexists(existing) and not existing.is_dir():
        raise UsageError(
            "not-a-directory", "this is not a directory", place=str(existing),
            hint="choose another path, or move it away",
        )  # fmt: skip
    return path


def require_output(path: Path) -> Path:
    """Return `path` if it is a directory for layouts, or can be created as one.

    Raises UsageError `not-a-directory`, `output-in-store`.
    """
    from pipeline.store import require_outside_stores  # Here and not above: not all that parse paths have a store.

    require_outside_stores(require_folder(path))
    return path


JUNIT_MARK = re.compile(rb"<testsuite")
"""In the first tag of a JUnit report."""

SUMMARY_MARK = re.compile(rb"\A## [^\n]+\n\n[^\n]+, exit code [0-9]+\.\n")
"""The headline of a night's summary in Markdown, and the line below it."""

STEP_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""The environment variable for the file to which a step of GitHub Actions, Gitea or Forgejo appends its summary."""

_BEGINNING = 4096
"""Bytes in which a file of a known kind has its mark."""


def has_other_kind(path: Path, mark: re.Pattern[bytes]) -> bool:
    """Return whether a file has content that does not begin as what is to be written there.

    `mark` is found near the beginning of such a file. False for an empty file, a device, and what cannot be read.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return False
    return bool(beginning) and mark.search(beginning) is None


def is_step_summary(path: Path, environment: Mapping[str, str]) -> bool:
    """Return whether CI names a file as its step's summary.

    That has what commands of the step wrote before, and keeps it.
    """
    named = environment.get(STEP_SUMMARY_VARIABLE)
    return bool(named) and os.path.realpath(path) == os.path.realpath(str(named))


def require_report_file(path: Path, option: str, mark: re.Pattern[bytes] | None) -> Path:
    """Return `path` if a report can be written there, before the work of which it tells.

    A file there must have `mark` near its beginning, as former reports have; None for one that is appended to. Raises
    UsageError `report-unwritable`, `not-a-report`.
    """
    folder = path.absolute().parent
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK) or not folder.is_dir():
        raise UsageError(
            "report-unwritable",
            f"no file can be written at '{path}'",
            place=option,
            hint="name a file in a folder that exists and that you may write to",
        )
    if mark is not None and has_other_kind(path, mark):
        raise UsageError(
            "not-a-report",
            f"'{path}' is no earlier report, and would be replaced by one",
            place=option,
            hint="name another file, or remove it",
        )
    return path


def require_present_key(path: Path | None, former: Sequence[Path] | None) -> None:
    """Refuse former keys without the present one. Raises UsageError `key-missing`."""
    if former and path is None:
        raise UsageError("key-missing", "--former-key needs --key", hint="give the publisher's present key with --key")


def require_key_file(path: Path) -> Path:
    """Return `path` unless it is a key itself, which no message may show.

    Raises UsageError `key-is-text`.
    """
    if "-----BEGIN" in str(path) or "\n" in str(path):
        raise UsageError(
            "key-is-text",
            "the option or environment variable for the key's file has the key itself",
            hint="write the key to a file that only you can read, and give its name",
        )
    return path


def names_layout(text: str) -> bool:
    """Return True if the text names an image's layout, and not a recipe."""
    return (Path(text) / "index.json").is_file()


def built_layout(name: str, output: Path, hint: str = "") -> Path:
    """Return the layout of that path, or of that name in `output`.

    Raises UsageError `not-a-layout` with the hint.
    """
    for path in (Path(name), output / name):
        if any((path / file).is_file() for file in ("oci-layout", "index.json")):
            return path
    where = f"no OCI layout in '{name}'" + ("" if "/" in name else f" or '{output / name}'")
    raise UsageError("not-a-layout", where, hint=hint or _LAYOUT_HINT)
