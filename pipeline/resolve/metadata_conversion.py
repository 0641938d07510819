"""Convert a repository's metadata to a `.solv` file: checked here, parsed in a child.

The document goes from its decompressor, through the checks, into a child process that parses it (`solv_conversion`):
two cores work, the decompressed document is never written, and what ends libsolv's parsers ends the child only. The
child is not believed: its time, its memory and what it writes are bounded, and nothing of it counts unless all of the
document was right and the child came to its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import solv

from pipeline.digest import Digest
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.process import PIPE, Process, start
from pipeline.progress import Progress
from pipeline.repos import OpenRepository, metadata_pieces
from pipeline.resolve.conversion_pipes import ChildLate, ChildPipes
from pipeline.resolve.listed_files import UnlistedDependencies
from pipeline.resolve.metadata_tags import checked_tags
from pipeline.resolve.solv_conversion import HEAD_SIZE, WRONG_DOCUMENT
from pipeline.resolve.solver_metadata import without_texts
from pipeline.store import Store

CHILD_LIFETIME = 3600.0
"""Seconds to wait for the child: four times the processor time that it has, which an overloaded machine may need. What
relbuild itself takes, to fetch and to decompress, does not count."""

SOLV_SIZE_FLOOR = 1 << 20
"""Bytes that a `.solv` file may have whatever the document's size. Above it, it may be as large as the document, whose
texts it contains once each: of primary metadata it is an eighth, of file lists a sixteenth."""

_PROGRAM = Path(__file__).with_name("solv_conversion.py")
_PIPE_SIZE = 1 << 20
_WHY_LIMIT = 4 << 10
"""Bytes of what a conversion says that was wrong."""


def convert_metadata(
    opened: OpenRepository, kind: str, primary: Path | None, store: Store, progress: Progress
) -> tuple[Digest, list[str] | None]:
    """Convert a document of a repository.

    `primary` is the `.solv` file of the repository's packages, for other kinds of documents.
    Returns the digest of the `.solv` file, in the store, and of packages the dependencies that need file lists (None:
    not known). Raises VerificationError `metadata-malformed`, EnvironmentLacking `child-failed`, and as
    `metadata_pieces`.
    """
    unlisted = UnlistedDependencies()
    document: Iterator[bytes] = checked_tags(
        metadata_pieces(opened, kind, store=store, progress=progress), kind=kind, place=_place(opened)
    )
    if primary is None:
        document = unlisted.watch(without_texts(document))
    digest = _convert(opened, kind, str(primary or ""), document, store)
    return digest, None if primary else unlisted.result


def _convert(opened: OpenRepository, kind: str, primary: str, document: Iterable[bytes], store: Store) -> Digest:
    """Convert a document while it is decompressed and verified.

    Returns the digest of the `.solv` file. Nothing is kept of it unless all of the document was right.
    """
    pieces = iter(document)
    first = next(pieces, b"")  # No child waits while the document is fetched, here or by another process.
    head = "\0".join((kind, primary, str(Path(solv.__file__).parents[1]))).encode(errors="surrogateescape")
    begin = len(head).to_bytes(HEAD_SIZE, "big") + head
    process = _start()
    try:
        with ChildPipes(process, CHILD_LIFETIME) as child:
            whole, size = child.write_all(itertools.chain((begin, first), pieces))
            with store.writer() as blob:
                limit = max(size, SOLV_SIZE_FLOOR)
                for piece in iter(child.read, b""):
                    blob.write(piece)
                    if blob.size > limit:
                        raise _malformed(opened, f"the conversion of '{kind}' makes more than {limit} bytes of {size}")
                why = child.read_errors(_WHY_LIMIT).decode(errors="replace").strip()
                status = child.wait()
                if status or not whole:
                    raise _conversion_error(opened, kind, status, why)
            return blob.digest
    except ChildLate:
        raise _child_failed(opened, kind, f"did not end in {CHILD_LIFETIME:g} s") from None


def _start() -> Process:
    process = start([sys.executable, "-I", "-S", "-B", _PROGRAM], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with contextlib.suppress(OSError):  # Refused beyond what a user's pipes may have (pipe(7)): then it is slower.
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return process


def _conversion_error(
    opened: OpenRepository, kind: str, status: int, why: str
) -> VerificationError | EnvironmentLacking:
    """Return the error for a child that ended with `status`, by whose fault it was.

    With status 0 it had not read all of the document.
    """
    if status == WRONG_DOCUMENT:
        return _malformed(opened, why)
    import signal

    names = {one.value: one.name for one in signal.Signals}
    how = names.get(-status, f"signal {-status}") if status < 0 else f"status {status}"
    told = f"ended with {how}" + (f": {why.splitlines()[-1]}" if why else "")
    if status >= 0 or -status == signal.SIGKILL:
        return _child_failed(opened, kind, told)
    return _malformed(opened, f"the conversion of '{kind}' {told}")


def _child_failed(opened: OpenRepository, kind: str, told: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "child-failed",
        f"the conversion of '{kind}' of repository {opened.repository.id} {told}",
        place="this machine",
        hint="the cause is this machine (memory, processes, load) or this installation, not the repository",
    )


def _malformed(opened: OpenRepository, wrong: str) -> VerificationError:
    return VerificationError(
        "metadata-malformed",
        wrong,
        place=_place(opened),
        hint="the repository's metadata is invalid; report it to its maintainer",
    )


def _place(opened: OpenRepository) -> str:
    return f"repository {opened.repository.id}"
