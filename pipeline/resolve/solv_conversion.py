"""Convert a metadata document to libsolv's format, as the program of a child process.

Run as a script by an isolated interpreter (`python -I`), which imports libsolv and nothing of relbuild: it starts in
milliseconds, the kernel bounds its memory and time, and what ends libsolv's parsers ends this process only. Stdin is
the length of a head, the head (the kind of document, the `.solv` file of the packages, the folder of libsolv's
bindings, with NUL between them) and the document; stdout is the `.solv` file, stderr what was wrong.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import solv

HEAD_SIZE = 4
"""Bytes of the head's length, the highest first."""
WRONG_DOCUMENT = 2
"""Exit status when the document is wrong, and stderr says what."""
_MEMORY_LIMIT = 8 << 30
"""Bytes of address space: file lists of 430 MB take 0.6 GB, and may have ten times that."""
_PROCESSOR_TIME = 900
"""Seconds of processor time until SIGXCPU: file lists of 430 MB take 5."""
_GRACE = 5
"""Seconds from there to the hard limit, at which the kernel sends SIGKILL alone, as it does where memory is short."""


def convert_document(kind: str, primary: str, source: int, target: int) -> str:
    """Read a document from `source` and write it to `target` as a `.solv` file.

    Returns what is wrong with it, or "". `primary` is the `.solv` file of the repository's packages, for other kinds of
    documents. Raises OSError.
    """
    import solv

    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    repo = pool.add_repo("converted")
    if primary and not add_solv_file(repo, primary, 0):
        return f"its packages cannot be read: {pool.errstr}"
    # It is decompressed already: libsolv's own reader reads only gzip, and add_rpmmd(None) crashes the interpreter.
    document = solv.xfopen_fd("", source, "r")
    extending = solv.Repo.REPO_LOCALPOOL | solv.Repo.REPO_EXTEND_SOLVABLES
    language, flags = ("FL", extending) if primary else (None, 0)
    if document is None or not repo.add_rpmmd(document, language, flags):
        return f"libsolv cannot read '{kind}': {pool.errstr}"
    made = solv.xfopen_fd("", target, "w")
    what = solv.XRepodata(repo, 2) if primary else repo
    if made is None or not what.write(made) or not made.close():
        raise OSError("the converted metadata cannot be written")
    return ""


def add_solv_file(repo: solv.Repo, path: str, flags: int) -> bool:
    """Load a `.solv` file into a repository, and return whether libsolv could read it.

    Its bindings refuse a path that is not UTF-8: such a file is opened here, and read more slowly. Raises OSError then,
    but not of a file that another process has removed.
    """
    import solv

    with contextlib.suppress(UnicodeEncodeError):
        path.encode()
        return bool(repo.add_solv(path, flags))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        file = solv.xfopen_fd("", handle, "r")
    finally:
        os.close(handle)
    return file is not None and bool(repo.add_solv(file, flags))


def main() -> None:
    """Convert what stands on stdin."""
    size = int.from_bytes(_exactly(HEAD_SIZE), "big")
    kind, primary, place = os.fsdecode(_exactly(size)).split("\0")
    _set_limits()
    sys.path.append(place)  # Where libsolv's bindings are; what comes with Python is found before.
    wrong = convert_document(kind, primary, sys.stdin.fileno(), sys.stdout.fileno())
    sys.stderr.write(wrong)
    sys.stderr.flush()
    os._exit(WRONG_DOCUMENT if wrong else 0)  # At once: nobody needs its memory given back in order.


def _set_limits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # Not for root, whose further processes are waited for no longer.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_TIME, _PROCESSOR_TIME + _GRACE))


def _exactly(size: int) -> bytes:
    """Read so many bytes of stdin and none more, which libsolv will read."""
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data


if __name__ == "__main__":
    main()
