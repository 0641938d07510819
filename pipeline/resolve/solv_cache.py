"""Convert repository metadata to libsolv's `.solv` files, kept in the store, and load them.

A file is identified by the checksums of its documents and by libsolv's version. Packages are always
loaded from such a file, also the first time: libsolv numbers strings in the order of loading, the file has another
order than the XML, and ties are broken by these numbers. (libdnf does the same:
`switchtosolv` in its write_main.)

What is not kept yet is made by `metadata_conversion`, which is imported only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import solv

from pipeline.digest import Digest, digest_json, identity
from pipeline.errors import VerificationError
from pipeline.processors import whole_processors
from pipeline.progress import Progress
from pipeline.repos import OpenRepository
from pipeline.resolve.library_versions import distribution_version
from pipeline.resolve.solv_conversion import add_solv_file
from pipeline.store import Store

EXTENSION_FLAGS = solv.Repo.REPO_LOCALPOOL | solv.Repo.REPO_EXTEND_SOLVABLES
"""Flags for loading file lists: as extensions of packages that are loaded already."""

LARGE_SOLV = 4 << 20
"""Bytes of packages' metadata from which on huge pages save more time than it takes to ask for them."""

SOLV_EXPANSION = 5
"""Times the size of its file that a repository takes in memory, indexed."""

_FORMAT = 2


def make_solv_files(repositories: Sequence[OpenRepository], kind: str, *, store: Store, progress: Progress) -> None:
    """Make the missing `.solv` files of a kind of document, of several repositories at once.

    Errors as `solv_file`, that of the first repository that has one.
    """
    missing = [one for one in repositories if kind in one.records and _known(one, kind, store) is None]
    if len(missing) < 2:
        return  # It is made when it is asked for.
    from concurrent.futures import ThreadPoolExecutor, wait

    with ThreadPoolExecutor(min(len(missing), whole_processors()), "relbuild-solv") as threads:
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
    from pipeline.resolve.metadata_conversion import convert_metadata  # Most resolutions convert nothing.

    primary = None if kind == "primary" else solv_file(opened, "primary", store=store, progress=progress)
    digest, unlisted = convert_metadata(opened, kind, primary, store, progress)
    if primary is None:
        store.remember(_unlisted(opened), unlisted)
    store.remember(_identity(opened, kind), str(digest))
    return store.blob(digest)


def unlisted_dependencies(opened: OpenRepository, store: Store) -> list[str] | None:
    """Return the dependencies of a repository that name paths which primary metadata leaves out.

    None if they are not known. They are known once the `.solv` file of its packages was made here.
    """
    return store.recall_as(_unlisted(opened), _texts)


def file_list_version(opened: OpenRepository) -> str:
    """Return a text that identifies what is made of a repository's packages and file lists."""
    return " ".join(
        str(_identity(opened, kind)) if kind in opened.records else "-" for kind in ("primary", "filelists")
    )


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


def load_solv(repo: solv.Repo, opened: OpenRepository, kind: str, *, store: Store, progress: Progress) -> None:
    """Load a document's `.solv` file into a libsolv repository.

    `primary` is to be loaded first; other kinds extend its packages. A file that libsolv cannot read is made once more.
    Raises VerificationError `metadata-malformed`, and as `solv_file`.
    """
    flags = 0 if kind == "primary" else EXTENSION_FLAGS
    for last in (False, True):
        path = solv_file(opened, kind, store=store, progress=progress)
        size = path.stat().st_size if kind == "primary" else 0  # File lists stay on the disk until they are asked for.
        if size >= LARGE_SOLV:
            from pipeline.heap import reserve_huge_pages

            reserve_huge_pages(SOLV_EXPANSION * size)
        if add_solv_file(repo, str(path), flags):
            return
        if last:
            break
        if kind == "primary":
            repo.empty(True)
        store.quarantine(path, "libsolv cannot read it")
    raise VerificationError(
        "metadata-malformed",
        f"libsolv cannot read what it made of '{kind}': {repo.pool.errstr}",
        place=f"repository {opened.repository.id}",
        hint="the repository's metadata is invalid; report it to its maintainer",
    )
