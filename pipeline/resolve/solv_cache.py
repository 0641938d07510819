"""Convert repository metadata to libsolv's `.solv` files, kept in the store, and load them.

A file is identified by the checksums of its documents and by libsolv's version. Packages are always
loaded from such a file, also the first time: libsolv numbers strings in the order of loading, the file has another
order than the XML, and ties are broken by these numbers. (libdnf does the same:
`switchtosolv` in its write_main.)
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import solv

from pipeline.digest import Digest, digest_json, identity
from pipeline.errors import EnvironmentLacking, VerificationError
from pipeline.progress import Progress
from pipeline.repos import OpenRepository, metadata_file
from pipeline.resolve.metadata_tags import refuse_long_tags
from pipeline.store import Store

SOLV_VERSION = importlib.metadata.version("solv")
EXTENSION_FLAGS = solv.Repo.REPO_LOCALPOOL | solv.Repo.REPO_EXTEND_SOLVABLES
"""Flags for loading file lists: as extensions of packages that are loaded already."""

_FORMAT = 2


def solv_file(opened: OpenRepository, kind: str, *, store: Store, progress: Progress) -> Path:
    """Return the `.solv` file of a repository document (`primary` or `filelists`).

    It is made if it is missing or damaged. Raises VerificationError `metadata-malformed`, and as `metadata_file`.
    """
    made_from = [str(opened.records[one].checksum) for one in ("primary", kind)]
    name = identity("solv", _FORMAT, kind=kind, made_from=made_from, solv=SOLV_VERSION)
    known = store.recall_as(name, digest_json)
    if known is not None and store.sound(known):
        return store.blob(known)
    pool = solv.Pool()
    pool.setdisttype(solv.Pool.DISTTYPE_RPM)
    repo = pool.add_repo(opened.repository.id)
    if kind == "primary":
        _read(repo, opened, kind, store, progress)
        digest = _write(repo, store)
    else:
        load_solv(repo, solv_file(opened, "primary", store=store, progress=progress), 0)
        _read(repo, opened, kind, store, progress)
        digest = _write(solv.XRepodata(repo, 2), store)
    store.remember(name, str(digest))
    return store.blob(digest)


def load_solv(repo: solv.Repo, path: Path, flags: int) -> None:
    """Load a `.solv` file into a repository."""
    if not repo.add_solv(str(path), flags):
        raise VerificationError(
            "metadata-malformed",
            f"libsolv cannot read its cache: {repo.pool.errstr}",
            place=f"repository {repo.name}",
            hint=f"remove {path} and run the command again",
        )


def _read(repo: solv.Repo, opened: OpenRepository, kind: str, store: Store, progress: Progress) -> None:
    found = metadata_file(opened, kind, store=store, progress=progress)
    assert found is not None, "callers ask for documents that repomd.xml has"
    refuse_long_tags(found[0], kind=kind, place=f"repository {opened.repository.id}")
    # Decompressed already: libsolv's own reader reads only gzip, and add_rpmmd(None) crashes the interpreter.
    file = solv.xfopen(str(found[0]), "r")
    language, flags = (None, 0) if kind == "primary" else ("FL", EXTENSION_FLAGS)
    if file is None or not repo.add_rpmmd(file, language, flags):
        raise VerificationError(
            "metadata-malformed",
            f"libsolv cannot read '{kind}': {repo.pool.errstr}",
            place=f"repository {opened.repository.id}",
            hint="the repository's metadata is invalid; report it to its maintainer",
        )


def _write(what: solv.Repo | solv.XRepodata, store: Store) -> Digest:
    with store.temporary("solv") as folder:
        path = folder / "solv"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            file = solv.xfopen_fd("", handle, "w")
            if file is None or not what.write(file) or not file.close():
                raise EnvironmentLacking(
                    "store-unwritable", "the cache of parsed metadata cannot be written", place=str(store.root)
                )
        finally:
            os.close(handle)
        with store.writer() as blob:
            blob.write(path.read_bytes())
    return blob.digest
