"""Recognise a build of which nothing has changed by all that it read and wrote.

After a build, a `RememberedBuild` is kept in the store under its seal: a snapshot of the files that it read, the paths
that it looked for, the program that did it, the blobs that it needs and the folders that it wrote, and what it said.
The next build of the same request compares them, which takes a few milliseconds, and repeats the answer if all are the
same. Where anything differs, or may, the ordinary build is done.

This module loads nothing that reads recipes, solves or makes images (docs/decisions/0055-builds-recognised.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.report_names import REPORT_FILE
from pipeline.snapshots import (
    LIFETIME,
    file_stamp,
    look_at_file,
    look_at_names,
    look_at_output,
    look_at_path,
    process_inputs,
    program_digest,
)
from pipeline.store import Store

FORMAT = 1
"""To be raised when what is compared or repeated changes its meaning."""

TOOK = "\0took\0"
"""In the lines of a remembered answer: the seconds that the build took, which no path or name can contain."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A recipe, found, and the options that its build depends on. `mode` is that of the lock."""

    recipe: Path
    repositories: Path
    locks: Path | None
    output: Path
    platform: str | None
    architectures: tuple[str, ...]
    mode: str
    compression: str
    smoke: bool
    full: bool
    offline: bool
    runtime: str | None


@dataclass(frozen=True, slots=True)
class RememberedBuild:
    """All that a build read and wrote, and what it said.

    `made`: when, in seconds since the epoch. `files` are (path, resolved path, mode, digest) of what was read, `large`
    (path, resolved path, stamp), `looked` (path, type of what is there, resolved path), `folders` (path, digest of the
    names in it), `programs` paths of Python's and the libraries' files, `modules` names of loaded modules,
    `code` the digest of both and of relbuild, `blobs` (digest, stamp) in the store, `outputs` (path, entries) of the
    folders that were written. `fresh`: their reports are still those of a build that made something. `warnings`,
    `lines`, `all_lines` (with --verbose) and `answer` (with --json) are what it said.
    """

    made: float
    files: Sequence[Sequence[object]]
    large: Sequence[Sequence[object]]
    looked: Sequence[Sequence[object]]
    folders: Sequence[Sequence[str]]
    programs: Sequence[str]
    modules: Sequence[str]
    code: str
    blobs: Sequence[Sequence[object]]
    outputs: Sequence[tuple[str, Mapping[str, object]]]
    fresh: bool
    warnings: Sequence[str]
    lines: Sequence[str]
    all_lines: Sequence[str]
    answer: Mapping[str, object]

    @property
    def compared(self) -> int:
        """Number of files, paths and blobs that are compared."""
        written = sum(len(entries) for _, entries in self.outputs)
        read = len(self.files) + len(self.large) + len(self.looked) + len(self.folders)
        return read + len(self.programs) + len(self.blobs) + written

    def saying(
        self, *, warnings: Sequence[str], lines: Sequence[str], all_lines: Sequence[str], answer: Mapping[str, object]
    ) -> RememberedBuild:
        """Return it with what the build said."""
        return replace(self, warnings=warnings, lines=lines, all_lines=all_lines, answer=answer)

    def after(self, took: float) -> RememberedBuild:
        """Return it with an answer that took so many seconds."""
        return replace(self, answer={**self.answer, "took_ms": round(took * 1000)})

    def told(self, *, verbose: bool, took: float) -> tuple[str, ...]:
        """Return the lines for people."""
        return tuple(line.replace(TOOK, f"{took:.1f}") for line in (self.all_lines if verbose else self.lines))


def request_name(request: BuildRequest, store: Store, environment: Mapping[str, str]) -> Digest:
    """Return the name under which the build of a request is remembered.

    It is of this process's user, folder and machine. Raises OSError.
    """
    return identity(
        "remembered-build",
        FORMAT,
        recipe=request.recipe,
        repositories=request.repositories,
        locks=request.locks,
        output=request.output,
        platform=request.platform,
        architectures=request.architectures,
        mode=request.mode,
        compression=request.compression,
        smoke=request.smoke,
        full=request.full,
        offline=request.offline,
        runtime=request.runtime,
        **process_inputs(store.seal, environment),
    )


def recall_build(store: Store, name: Digest, now: float) -> RememberedBuild | None:
    """Return the remembered build of that name if nothing has changed since, else None."""
    known = store.recall_as(name, _read)
    if known is None or not known.made <= now < known.made + LIFETIME:
        return None
    with contextlib.suppress(OSError):
        return known if all(check(store, known) for check in _CHECKS) else None
    return None


def settle_reports(
    store: Store, name: Digest, known: RememberedBuild, took: Callable[[], float]
) -> RememberedBuild | None:
    """Write into the reports that nothing was made again, as an unchanged build does.

    Returns the build as it is remembered from now on, None if a report cannot be written, or is another one by now.
    """
    outputs: list[tuple[str, Mapping[str, object]]] = []
    try:
        for (layout, held), (folder, entries) in zip(known.outputs[::2], known.outputs[1::2], strict=True):
            outputs.append((layout, held))
            with store.locked(output_lock(Path(layout))):
                outputs.append((folder, _settled_report(folder, entries, took)))
    except (OSError, ValueError, TypeError, LookupError):
        return None
    settled = replace(known, outputs=outputs, fresh=False)
    remember_build(store, name, settled)
    return settled


def output_lock(layout: Path) -> str:
    """Return the name of the store's lock under which a layout and its report are written."""
    return f"output-{layout.resolve()}"


def _settled_report(folder: str, entries: Mapping[str, object], took: Callable[[], float]) -> Mapping[str, object]:
    """Write that nothing was made again into the report in `folder`; return what is in it then.

    Raises ValueError if it is not what `entries` say, and as `unchanged_report`.
    """
    if REPORT_FILE not in entries:
        return entries
    if look_at_output(folder, ()) != entries:
        raise ValueError("another build has written it")
    path = Path(folder, REPORT_FILE)
    report = unchanged_report(path.read_bytes())
    if report is None:
        return entries
    data = report_bytes({**report, "took_ms": round(took() * 1000)})
    draft = path.with_name(f".{REPORT_FILE}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)
    return {**entries, REPORT_FILE: hashlib.sha256(data).hexdigest()}


def unchanged_report(data: bytes) -> dict[str, object] | None:
    """Return the report of a build as it is when it is done again and nothing changed.

    None if it is that already. Raises ValueError, TypeError, LookupError.
    """
    report: dict[str, Any] = json.loads(data)
    layers = [{**layer, "reused": True} for layer in report["image"]["layers"]]
    settled = {
        **report,
        "image": {**report["image"], "layers": layers},
        "lock": {"wrote": False, "changes": []},
        "verdict_reused": report["smoke"] is not None,
    }
    return None if settled == report else settled


def report_bytes(value: Mapping[str, object]) -> bytes:
    """Return a build's report as the bytes of its file."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def remember_build(store: Store, name: Digest, build: RememberedBuild) -> None:
    """Remember a build in the store; a full disk is no error of a build that is done."""
    with contextlib.suppress(OSError):
        store.remember(name, {field: getattr(build, field) for field in RememberedBuild.__slots__})


def _read(value: object) -> RememberedBuild:
    if not isinstance(value, dict):
        raise TypeError("a remembered build is an object")
    return RememberedBuild(**value)


# --- comparing, what is cheap first --------------------------------------------------------------


def _same_files(_: Store, known: RememberedBuild) -> bool:
    return all(look_at_file(str(path)) == (real, mode, digest) for path, real, mode, digest in known.files)


def _same_large(_: Store, known: RememberedBuild) -> bool:
    return all(
        os.path.realpath(str(path)) == real and file_stamp(os.stat(str(path))) == stamp  # noqa: PTH116
        for path, real, stamp in known.large
    )


def _same_paths(_: Store, known: RememberedBuild) -> bool:
    return all(look_at_path(str(path)) == (kind, real) for path, kind, real in known.looked) and all(
        look_at_names(path) == names for path, names in known.folders
    )


def _same_blobs(store: Store, known: RememberedBuild) -> bool:
    return all(store.stamp(Digest(str(digest))) == stamp for digest, stamp in known.blobs)


def _same_code(_: Store, known: RememberedBuild) -> bool:
    return program_digest(known.programs, frozenset(known.modules))[0] == known.code


def _same_outputs(_: Store, known: RememberedBuild) -> bool:
    for folder, entries in known.outputs:
        stamped = {name for name, entry in entries.items() if isinstance(entry, list)}
        if look_at_output(folder, stamped) != entries:
            return False
    return True


_CHECKS: tuple[Callable[[Store, RememberedBuild], bool], ...] = (
    _same_files,
    _same_paths,
    _same_large,
    _same_blobs,
    _same_outputs,
    _same_code,
)
