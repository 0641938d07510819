"""Find the owners of requested paths: as remembered, or in file lists, then loaded.

Which packages of a repository own a path depends on its metadata and libsolv's version alone. libsolv finds them by
unpacking and searching the lists of all packages. What it found is kept in the store, so the next resolution that is
asked for the path loads no lists. A path that is remembered or not gives the same resolution: file lists that are
loaded for owners are not put into the index of provides.
"""

from __future__ import annotations

import contextlib

import solv

from pipeline.digest import Digest, identity
from pipeline.progress import Progress
from pipeline.repos import OpenRepository
from pipeline.resolve.solv_cache import file_list_version, load_solv, make_solv_files
from pipeline.store import Store

PATHS_MOST = 256
"""Paths that are remembered of a repository's content, the newest."""

LENGTH_MOST = 4096
"""Characters of a path that is remembered: PATH_MAX."""

OWNERS_MOST = 1000
"""Owners of a path that is remembered: with the bounds above, records have some MB at the most."""

_KIND = "filelists"
_FORMAT = 2
_ALL = solv.Selection.SELECTION_FILELIST | solv.Selection.SELECTION_WITH_ALL
"""Of plain paths, packages whatever their architecture, also disabled ones: others ask again with others disabled."""

_Owners = dict[str, list[int]]
"""Paths, the newest last, and the positions of their owners in the repository."""


class FileLists:
    """The file lists of the repositories in a pool, of which the packages are the first in it."""

    def __init__(self, pool: solv.Pool, store: Store, progress: Progress) -> None:
        self._pool = pool
        self._store = store
        self._progress = progress
        self.repositories: list[tuple[solv.Repo, OpenRepository]] = []
        self._loaded: set[str] = set()
        self._remembered: dict[str, _Owners] = {}
        self._owners: dict[str, list[int]] = {}

    def load(self) -> None:
        """Load the file lists of all repositories, once. Raises as `load_solv`."""
        filled = [one for one in self._filled() if one[0].name not in self._loaded]
        make_solv_files([opened for _, opened in filled], _KIND, store=self._store, progress=self._progress)
        for repo, opened in filled:
            if _KIND in opened.records:
                load_solv(repo, opened, _KIND, store=self._store, progress=self._progress)
            self._loaded.add(repo.name)

    def owners(self, path: str) -> list[int]:
        """Return the packages whose file lists have a path, sorted; also disabled ones.

        Raises as `load`, if it is not remembered.
        """
        if path not in self._owners:
            known = [self._recall(repo, opened, path) for repo, opened in self._filled()]
            found = [one for numbers in known if numbers is not None for one in numbers]
            self._owners[path] = self._search(path) if None in known else sorted(found)
        return self._owners[path]

    def _filled(self) -> list[tuple[solv.Repo, OpenRepository]]:
        return [one for one in self.repositories if not one[0].isempty()]

    def _search(self, path: str) -> list[int]:
        self.load()
        found = [(int(one.id), one.repo.name) for one in self._pool.select(path, _ALL).solvables()]
        for repo, opened in self._filled() if found else ():  # Mistyped paths are not remembered.
            first = _first(repo)
            self._remember(opened, path, sorted({number - first for number, name in found if name == repo.name}))
        return sorted({number for number, _ in found})

    # --- the store -----------------------------------------------------------------------------

    def _recall(self, repo: solv.Repo, opened: OpenRepository, path: str) -> list[int] | None:
        if repo.name not in self._remembered:
            self._remembered[repo.name] = self._known(opened)
        known = self._remembered[repo.name].get(path)
        if known is None or any(number >= repo.nsolvables for number in known):
            return None
        first = _first(repo)
        return [first + number for number in known]

    def _remember(self, opened: OpenRepository, path: str, owners: list[int]) -> None:
        """Keep the owners of a path among the newest; not if they are too many."""
        if len(path) > LENGTH_MOST or len(owners) > OWNERS_MOST:
            return
        known = self._known(opened)  # Anew: another process may have added to it.
        known.pop(path, None)
        known[path] = owners
        newest = [[one, known[one]] for one in list(known)[-PATHS_MOST:]]
        with contextlib.suppress(OSError):  # The answer is at hand, also where the disk is full.
            self._store.remember(_name(opened), newest, sync=False)

    def _known(self, opened: OpenRepository) -> _Owners:
        return self._store.recall_as(_name(opened), _read_owners) or {}


def _first(repo: solv.Repo) -> int:
    """Return the number of a repository's first package."""
    return next(int(one.id) for one in repo.solvables)


def _name(opened: OpenRepository) -> Digest:
    return identity("owners of paths", _FORMAT, repository=file_list_version(opened))


def _read_owners(value: object) -> _Owners:
    if not isinstance(value, list):
        raise TypeError("not the owners of paths")
    return {str(path): [_natural(one) for one in owners] for path, owners in value}


def _natural(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError("not a position")
    return value
