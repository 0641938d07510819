"""Convert operating-system errors into relbuild's own, by `errno`.

Each has its code, its exit status and its hint. An OSError is never reported as a defect of relbuild, so unknown ones
are converted too. Some are reported in other types: a thread that cannot be started is a RuntimeError in Python.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.errors import EnvironmentLacking, Problem, RelbuildError, UsageError
from pipeline.lazy_dataclasses import dataclass

_NO_THREAD = "can't start new thread"
"""RuntimeError's text where the kernel or a limit refuses one more thread (CPython, Modules/_threadmodule.c)."""

_NO_TEMPORARY_DIRECTORY = "No usable temporary directory"
"""Beginning of FileNotFoundError's text where none can be written to (CPython, Lib/tempfile.py)."""


@dataclass(frozen=True, slots=True)
class _Conversion:
    code: str
    message: str
    hint: str
    kind: type[RelbuildError] = EnvironmentLacking


FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of errors of which a file system without space, or a user's quota, is the cause."""

_FULL = _Conversion(
    "disk-full",
    "the disk is full",
    "free space on the file system of that path, or choose other directories with --store and --output",
)
_REFUSED = _Conversion(
    "no-permission",
    "permission denied by the operating system",
    "let this user read and write there (`ls -ld` shows owner and mode), or choose another path",
)
_DEFECTIVE = _Conversion(
    "disk-error",
    "disk or file system error",
    "check the kernel log (`dmesg`); once the disk is sound, `relbuild store fsck` finds damaged files",
)
_FILES = _Conversion("too-many-open-files", "too many open files", "raise the limit: `ulimit -n 4096`")
_MEMORY = _Conversion("out-of-memory", "out of memory", "provide more memory, or run fewer jobs at once (--jobs)")
_PROCESSES = _Conversion(
    "too-many-processes",
    "cannot start more processes or threads",
    "raise the limit (`ulimit -u`, or the control group's pids.max), or run fewer jobs at once (--jobs)",
)
_NOT_A_FOLDER = _Conversion("not-a-directory", "not a directory", "check the path", UsageError)
_LOOP = _Conversion("path-unusable", "path unusable", "check the path", UsageError)

_CONVERSIONS: Mapping[int, _Conversion] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _Conversion("disk-full", "the disk quota is exhausted", _FULL.hint),
    errno.EFBIG: _Conversion(
        "disk-full", "the file exceeds the size limit", "see `ulimit -f`, or name another file system"
    ),
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EROFS: _Conversion(
        "read-only",
        "the file system is read-only",
        "mount it writable, or choose a path on another file system",
    ),
    errno.EIO: _DEFECTIVE,
    errno.EUCLEAN: _DEFECTIVE,
    errno.ENXIO: _DEFECTIVE,
    errno.ENODEV: _DEFECTIVE,
    errno.EREMOTEIO: _DEFECTIVE,
    errno.ESTALE: _Conversion(
        "disk-error", "stale file handle of a network file system", "remount it, then run the command again"
    ),
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _PROCESSES,
    errno.ENOENT: _Conversion("file-missing", "file or directory not found", "check the path", UsageError),
    errno.ENOTDIR: _NOT_A_FOLDER,
    errno.EEXIST: _Conversion(
        "file-in-the-way", "the path already exists", "choose another path, or move the file away", UsageError
    ),
    errno.EISDIR: _Conversion("is-a-directory", "this is a directory, not a file", "check the path", UsageError),
    errno.ELOOP: _LOOP,
    errno.ENAMETOOLONG: _LOOP,
}


def full_disk_error(error: OSError, store: Path | None) -> RelbuildError:
    """Convert an error in `FULL_DISK`, with a hint for the file system that is full.

    `store`: the store's folder, on whose file system `relbuild store gc` frees space; None where a command has none.
    """

    def hint(problem: Problem) -> str:
        where = problem.place or ""
        if store is None:
            return "free space on that file system, or choose a directory on another one"
        if not where or _device(Path(where)) == _device(store):
            return "free space with `relbuild store gc`, or choose another store with --store"
        return "free space on that file system, which the store is not on, or choose a directory on another one"

    return _with_hint(error, hint)


def refused_store_error(error: OSError) -> RelbuildError:
    """Convert an error of a store that cannot be written, with the option that names another."""
    return _with_hint(error, lambda problem: f"{problem.hint}: for the store, with --store")


def _with_hint(error: OSError, hint: Callable[[Problem], str]) -> RelbuildError:
    """Convert an error with another hint than its errno has."""
    told = _of_system(error)
    return type(told).of([replace(problem, hint=hint(problem)) for problem in told.problems])


def _device(path: Path) -> int | None:
    """Return the number of the device of a path, or of the folder above that exists."""
    for one in (path.absolute(), *path.absolute().parents):
        with contextlib.suppress(OSError):
            return one.stat().st_dev
    return None


def relbuild_error(error: BaseException) -> RelbuildError | None:
    """Convert an exception to a RelbuildError; None for a defect of relbuild itself."""
    match error:
        case RelbuildError():
            return error
        case MemoryError():
            return _MEMORY.kind(_MEMORY.code, _MEMORY.message, hint=_MEMORY.hint)
        case RuntimeError() if str(error) == _NO_THREAD:
            return _PROCESSES.kind(_PROCESSES.code, _PROCESSES.message, hint=_PROCESSES.hint)
        case OSError():
            return _of_system(error)
    return None


def _of_system(error: OSError) -> RelbuildError:
    number = error.errno
    where = _path(error.filename)
    if number == errno.ENOENT and str(error.strerror).startswith(_NO_TEMPORARY_DIRECTORY):
        return EnvironmentLacking(
            "no-temporary-directory",
            f"no directory for temporary files can be written to: {error.strerror}",
            hint="set TMPDIR to one that can",
        )
    if number == errno.ENOENT and where is None and _without_working_directory():
        return EnvironmentLacking(
            "working-directory-missing", "the working directory was removed", hint="change to a folder that exists"
        )
    answer = _CONVERSIONS.get(number or 0)
    if isinstance(error, FileExistsError) and where and not Path(where).is_dir():
        answer = _NOT_A_FOLDER  # An existing folder would be no error, so something else is there.
    if answer is None or (answer.kind is UsageError and where is None):
        said = str(error.strerror or error) or type(error).__name__
        name = f" ({errno.errorcode[number]})" if number is not None and number in errno.errorcode else ""
        return EnvironmentLacking(
            "system-error",
            f"operating system error: {said}{name}",
            place=where,
            hint="run `relbuild doctor` to see what this machine lacks, then run the command again",
        )
    return answer.kind(answer.code, f"{answer.message}: {error.strerror}", place=where, hint=answer.hint)


def _without_working_directory() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  a look, and no path
    except FileNotFoundError:
        return True
    return False


def _path(filename: object) -> str | None:
    """Return the path in an OSError's filename, which may be text, bytes, or a descriptor."""
    if isinstance(filename, int):
        with contextlib.suppress(OSError):
            return str(Path(f"/proc/self/fd/{filename}").readlink())
        return None
    return os.fsdecode(filename) if isinstance(filename, str | bytes | os.PathLike) and filename else None


def port_unavailable(host: str, port: int, error: OSError) -> EnvironmentLacking:
    """Make the error of an address of this machine on which a command cannot listen."""
    hint = "use another port"
    if error.errno == errno.EADDRINUSE:
        hint = f"another program uses it (`ss -ltnp 'sport = :{port}'` names it): end that, or use another port"
    elif error.errno == errno.EACCES:
        hint = "ports below 1024 are for root (sysctl net.ipv4.ip_unprivileged_port_start): use a higher one"
    elif error.errno == errno.EADDRNOTAVAIL:
        hint = "this machine does not have the address: `ip address` lists those that it has"
    place = f"{host}:{port}"
    # asyncio adds the address, which is told already.
    reason = os.strerror(error.errno) if error.errno else error.strerror
    return EnvironmentLacking("port-unavailable", f"cannot listen on {place}: {reason}", place=place, hint=hint)
