"""Convert repository metadata to libsolv's `.solv` files, kept in the store, and load them.

A file is identified by the checksums of its documents and by libsolv's version. Packages are always
loaded from such a file, also the first time: libsolv numbers strings in the order of loading, the file has another
order than the XML, and ties are broken by these numbers. (libdnf does the same:
`switchtosolv` in its write_main.)

A large document goes from its decompressor, through the checks, into a child process that parses it
(`solv_conversion`): two cores work, the decompressed document is never written, and what ends libsolv's parsers ends
the child only.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import solv

from pipeline.digest import CHUNK, Digest, chunks, digest_json, identity
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.progress import Progress
from pipeline.repos import OpenRepository, metadata_pieces
from pipeline.resolve.library_versions import distribution_version
from pipeline.resolve.listed_files import UnlistedDependencies
from pipeline.resolve.metadata_tags import checked_tags
from pipeline.resolve.solv_conversion import HEAD, WRONG_DOCUMENT, convert_document
from pipeline.resolve.solver_metadata import without_texts
from pipeline.store import Store

EXTENSION_FLAGS = solv.Repo.REPO_LOCALPOOL | solv.Repo.REPO_EXTEND_SOLVABLES
"""Flags for loading file lists: as extensions of packages that are loaded already."""

SMALL_DOCUMENT = 2 << 20
"""Bytes, decompressed, of a document that is converted in this process: a child of its own takes longer to start."""

_FORMAT = 2
_PROGRAM = Path(__file__).with_name("solv_conversion.py")
_PIPE_SIZE = 1 << 20
_WHY_LIMIT = 4 << 10
"""Bytes of what a conversion says that was wrong."""


def make_solv_files(repositories: Sequence[OpenRepository], kind: str, *, store: Store, progress: Progress) -> None:
    """Make the missing `.solv` files of a kind of document, of several repositories at once.

    Errors as `solv_file`, that of the first repository that has one.
    """
    missing = [one for one in repositories if kind in one.records and _known(one, kind, store) is None]
    if len(missing) < 2:
        return  # It is made when it is asked for.
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1), "relbuild-solv") as threads:
        made = [threads.submit(solv_file, one, kind, store=store, progress=progress) for one in missing]
        try:
            wait(made)
        except BaseException:  # An interrupt: those that have not begun are not made.
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    for one in made:
        one.result()


def solv_file(opened: OpenRepository, kind: str, *, store: Store, progress: Progress) -> Path:
    """Return the `.solv` file of a repository document (`primary` or `filelists`).

    It is made if it is missing or damaged. Raises VerificationError `metadata-malformed`, and as `metadata_pieces`.
    """
    known = _known(opened, kind, store)
    if known is not None:
        return known
    if kind == "primary":
        digest = _convert_primary(opened, store, progress)
    else:
        primary = solv_file(opened, "primary", store=store, progress=progress)
        digest = _convert(opened, kind, str(primary), _document(opened, kind, store, progress), store)
    store.remember(_identity(opened, kind), str(digest))
    return store.blob(digest)


def unlisted_dependencies(opened: OpenRepository, store: Store) -> list[str] | None:
    """Return the dependencies of a repository that name paths which primary metadata leaves out.

    None if they are not known. They are known once the `.solv` file of its packages was made here.
    """
    return store.recall_as(_unlisted(opened), _texts)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError("not a list of texts")
    return value


def _unlisted(opened: OpenRepository) -> Digest:
    return identity("unlisted dependencies", 1, made_from=str(opened.records["primary"].checksum))


def _identity(opened: OpenRepository, kind: str) -> Digest:
    made_from = [str(opened.records[one].checksum) for one in ("primary", kind)]
    return identity("solv", _FORMAT, kind=kind, made_from=made_from, solv=distribution_version("solv"))


def _known(opened: OpenRepository, kind: str, store: Store) -> Path | None:
    """Return the `.solv` file that the store made from this document, if it is unchanged."""
    known = store.recall_as(_identity(opened, kind), digest_json)
    return store.blob(known) if known is not None and store.sound(known) else None


def load_solv(repo: solv.Repo, path: Path, flags: int) -> None:
    """Load a `.solv` file into a repository."""
    if not repo.add_solv(str(path), flags):
        raise VerificationError(
            "metadata-malformed",
            f"libsolv cannot read its cache: {repo.pool.errstr}",
            place=f"repository {repo.name}",
            hint=f"remove {path} and run the command again",
        )


def _convert_primary(opened: OpenRepository, store: Store, progress: Progress) -> Digest:
    """Convert the packages of a repository; also remember the dependencies that need file lists."""
    unlisted = UnlistedDependencies()
    document = unlisted.watch(without_texts(_document(opened, "primary", store, progress)))
    digest = _convert(opened, "primary", "", document, store)
    store.remember(_unlisted(opened), unlisted.result)
    return digest


def _document(opened: OpenRepository, kind: str, store: Store, progress: Progress) -> Iterator[bytes]:
    pieces = metadata_pieces(opened, kind, store=store, progress=progress)
    return checked_tags(pieces, kind=kind, place=_place(opened))


def _convert(opened: OpenRepository, kind: str, primary: str, document: Iterable[bytes], store: Store) -> Digest:
    """Convert a document while it is decompressed and verified.

    Returns the digest of the `.solv` file. Nothing is kept of it unless all of the document was right.
    """
    size = opened.records[kind].open_size
    if size is not None and size <= SMALL_DOCUMENT:
        return _convert_here(opened, kind, primary, document, store)
    return _convert_in_child(opened, kind, primary, document, store)


def _convert_here(opened: OpenRepository, kind: str, primary: str, document: Iterable[bytes], store: Store) -> Digest:
    with (
        store.temporary("solv") as folder,
        (folder / "document").open("w+b") as source,
        (folder / "solv").open("w+b") as made,
    ):
        for piece in document:
            source.write(piece)
        source.flush()
        source.seek(0)
        try:
            wrong = convert_document(kind, primary, source.fileno(), made.fileno())
        except OSError as error:
            raise EnvironmentLacking(
                "store-unwritable", "the cache of parsed metadata cannot be written", place=str(store.root)
            ) from error
        if wrong:
            raise _malformed(opened, wrong)
        with store.writer() as blob:
            made.seek(0)
            for piece in chunks(made):
                blob.write(piece)
    return blob.digest


def _convert_in_child(
    opened: OpenRepository, kind: str, primary: str, document: Iterable[bytes], store: Store
) -> Digest:
    from pipeline.process import PIPE, start  # Most resolutions convert nothing.

    head = json.dumps({"kind": kind, "primary": primary, "place": str(Path(solv.__file__).parents[1])}).encode()
    process = start(
        [sys.executable, "-I", "-S", "-B", _PROGRAM],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        with contextlib.suppress(OSError):  # Refused beyond what a user's pipes may have (pipe(7)): then it is slower.
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        whole = _feed(process.stdin, itertools.chain((HEAD.pack(len(head)) + head,), document))
        with store.writer() as blob:
            for piece in iter(partial(process.stdout.read, CHUNK), b""):
                blob.write(piece)
            why = process.stderr.read(_WHY_LIMIT).decode(errors="replace").strip()
            status = process.wait()
            if status or not whole:
                raise _conversion_error(opened, kind, status, why)
        return blob.digest
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def _feed(stdin: IO[bytes], pieces: Iterable[bytes]) -> bool:
    """Write pieces to a child and close its input; return False if it had ended before.

    Why it ended, it says itself.
    """
    for piece in pieces:  # An error of theirs is not one of the pipe.
        try:
            stdin.write(piece)
        except BrokenPipeError:
            return False
    try:
        stdin.close()
    except BrokenPipeError:
        return False
    return True


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
    told = f"the conversion of '{kind}' ended with {how}" + (f": {why.splitlines()[-1]}" if why else "")
    if status >= 0 or -status == signal.SIGKILL:
        return EnvironmentLacking(
            "child-failed",
            told,
            place=_place(opened),
            hint="the cause is this machine (memory, processes) or this installation",
        )
    return _malformed(opened, told)


def _malformed(opened: OpenRepository, wrong: str) -> VerificationError:
    return VerificationError(
        "metadata-malformed",
        wrong,
        place=_place(opened),
        hint="the repository's metadata is invalid; report it to its maintainer",
    )


def _place(opened: OpenRepository) -> str:
    return f"repository {opened.repository.id}"
