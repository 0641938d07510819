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
import stat
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pipeline
from pipeline.beneath.read_log import listing_digest
from pipeline.digest import Digest, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.store import Store

FORMAT = 1
"""To be raised when what is compared or repeated changes its meaning."""

LIFETIME = 86400.0
"""Seconds for which a build is remembered. What depends on the date is looked at again once a day: a key that expires
is warned of. So is the last use of what the store holds, which it records to a day too."""

SMALL_FILE = 8 << 20
"""Bytes up to which a file is compared by its content; a larger one by its stamp. Hashing this takes 5 ms."""

REPORT_FILE = "report.json"

TOOK = "\0took\0"
"""In the lines of a remembered answer: the seconds that the build took, which no path or name can contain."""

IGNORED_VARIABLES = frozenset(
    {
        *("_", "OLDPWD", "PWD", "SHLVL"),
        *(
            "COLORTERM",
            "COLUMNS",
            "GPG_TTY",
            "LINES",
            "STY",
            "TERM",
            "TERM_SESSION_ID",
            "TMUX",
            "TMUX_PANE",
            "WINDOWID",
        ),
        *("SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "XDG_SESSION_ID"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID"),
    }
)
"""Environment variables that name a terminal, a session, or the working directory, which is compared itself. All others
count, whether anything reads them or not."""

_INSTALLED = (".dist-info", ".egg-info", ".pth")
"""Endings of names in a folder of modules that tell what is installed there."""

_OWN_STATUS = Path("/proc/self/status")
CODE = Path(pipeline.__file__).parent
"""The folder of relbuild's own files."""


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
        **process_inputs(store, environment),
    )


def process_inputs(store: Store, environment: Mapping[str, str]) -> dict[str, object]:
    """Return what a command depends on besides its options.

    Folder, environment, user, machine, Python. Values of the environment may be secret, so that their seal by the
    store stands in it. Raises OSError.
    """
    variables = {name: value for name, value in environment.items() if name not in IGNORED_VARIABLES}
    system = os.uname()
    own = [
        line for line in _OWN_STATUS.read_text().splitlines() if line.startswith(("Uid:", "Gid:", "Cap", "Seccomp:"))
    ]
    return {
        "folder": os.getcwd(),  # noqa: PTH109  a text, and not resolved
        "environment": store.seal(json.dumps(sorted(variables.items())).encode()),
        "user": own,
        "machine": [system.sysname, system.release, system.version, system.machine],
        "python": [sys.executable, sys.version, str(sys.flags), *sys.path],
    }


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


# --- looking -------------------------------------------------------------------------------------


def look_at_file(path: str) -> tuple[str, int, str] | None:
    """Return a small file's resolved path, mode and digest; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > SMALL_FILE:
            return None
        return os.path.realpath(path), found.st_mode, hashlib.file_digest(file, "sha256").hexdigest()


def look_at_path(path: str) -> tuple[int, str]:
    """Return the type of what is at a path (0: nothing) and its resolved path, "" for nothing."""
    if not os.path.lexists(path):
        return 0, ""
    try:
        return stat.S_IFMT(os.stat(path).st_mode), os.path.realpath(path)  # noqa: PTH116  ten times as fast
    except OSError:
        return -1, ""


def look_at_names(path: str) -> str:
    """Return the digest of the names in a folder, "" if it cannot be read."""
    try:
        return listing_digest(sorted(os.listdir(path)))  # noqa: PTH208  names, not paths
    except OSError:
        return ""


def file_stamp(found: os.stat_result) -> list[int]:
    """Return device, inode, size, modification and change time of a file, and its mode.

    The kernel sets the change time with every change, and nobody else can.
    """
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode]


def program_digest(programs: Iterable[str], modules: Container[str]) -> tuple[str, int]:
    """Return the digest of the stamps of relbuild and of `programs`, and their last change.

    With them goes what would be imported in place of one of `modules` (names without a dot), and what is installed. The
    change is in nanoseconds since the epoch. Raises OSError if one is missing.
    """
    seen = [f"{folder}\0{' '.join(_importable(folder, modules))}\n" for folder in sys.path]
    newest = 0
    for path, found in (*_own_files(CODE), *((path, os.stat(path)) for path in programs)):  # noqa: PTH116
        seen.append(f"{path}\0{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n")
        newest = max(newest, found.st_ctime_ns)
    return hashlib.sha256("".join(seen).encode(errors="surrogateescape")).hexdigest(), newest


def _importable(folder: str, modules: Container[str]) -> list[str]:
    """Return the names in a folder that are of modules, or tell what is installed."""
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name.partition(".")[0] in modules or name.endswith(_INSTALLED))


def _own_files(folder: str | Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file of relbuild with its status, sorted, without what Python compiles."""
    with os.scandir(folder) as items:
        listed = sorted(items, key=lambda item: item.name)
    for item in listed:
        if item.is_dir(follow_symlinks=False):
            if item.name != "__pycache__":
                yield from _own_files(item.path)
        elif not item.name.endswith(".pyc"):
            yield item.path, item.stat()


def look_at_output(folder: str, stamped: Container[str]) -> dict[str, object]:
    """Return what is below a folder that a build wrote, by name.

    A file by its digest, or by its stamp if it is in `stamped`; a folder in it is None. What a build writes nowhere is
    -1: symlinks and other kinds of files, large documents.
    """
    found: dict[str, object] = {}
    waiting = [("", folder)]
    while waiting:
        above, place = waiting.pop()
        with os.scandir(place) as items:
            for item in items:
                name, status = f"{above}{item.name}", item.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    found[name] = None
                    waiting.append((f"{name}/", item.path))
                elif stat.S_ISREG(status.st_mode) and name in stamped:
                    found[name] = file_stamp(status)
                else:
                    seen = look_at_file(item.path) if stat.S_ISREG(status.st_mode) else None
                    found[name] = seen[2] if seen is not None else -1
    return found


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
