"""Find the owners of paths: as remembered, or in file lists that are loaded for it.

Which packages own a path depends on the repository's metadata and libsolv's version alone; which of them satisfy
dependencies, also on the other repositories and the architecture. libsolv finds both by unpacking and searching the
lists of all packages. What it found is kept in the store under all of that, so the next resolution loads no lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import solv

from pipeline.digest import Digest, identity
from pipeline.progress import Progress
from pipeline.repos import OpenRepository
from pipeline.resolve.solv_cache import file_list_version, load_solv, make_solv_files, path_dependencies
from pipeline.store import Store

_KIND = "filelists"
_FORMAT = 1
_ALL = solv.Selection.SELECTION_FILELIST | solv.Selection.SELECTION_WITH_ALL
"""Of plain paths, packages whatever their architecture, also disabled ones: others ask again with others disabled."""
_FILES = 1
"""Part of a package's provides: its files that dependencies name (libsolv's SOLVABLE_FILEMARKER)."""

_Provided = tuple[str, int, int]
"""A path that a dependency names, and a package that has it: the repository's position, and its own in there."""


class FileLists:
    """The file lists of the repositories in a pool, of which the packages are the first in it."""

    def __init__(self, pool: solv.Pool, arch: str, store: Store, progress: Progress) -> None:
        self._pool = pool
        self._arch = arch
        self._store = store
        self._progress = progress
        self.repositories: list[tuple[solv.Repo, OpenRepository]] = []
        self._loaded: set[str] = set()
        self._owners: dict[str, list[int]] = {}

    def load(self) -> None:
        """Load the file lists of all repositories, once. Raises as `load_solv`."""
        filled = [one for one in self.repositories if not one[0].isempty() and one[0].name not in self._loaded]
        make_solv_files([opened for _, opened in filled], _KIND, store=self._store, progress=self._progress)
        for repo, opened in filled:
            if _KIND in opened.records:
                load_solv(repo, opened, _KIND, store=self._store, progress=self._progress)
            self._loaded.add(repo.name)

    # --- requests ------------------------------------------------------------------------------

    def owners(self, path: str) -> list[int]:
        """Return the packages whose file lists have a path, sorted; also disabled ones."""
        if path not in self._owners:
            known = [self._recall(repo, opened, path) for repo, opened in self.repositories]
            found = [one for numbers in known if numbers is not None for one in numbers]
            self._owners[path] = self._search(path) if None in known else sorted(found)
        return self._owners[path]

    def _search(self, path: str) -> list[int]:
        self.load()
        found = [(int(one.id), one.repo.name) for one in self._pool.select(path, _ALL).solvables()]
        for repo, opened in self.repositories:
            owners = sorted({number - _first(repo) for number, name in found if name == repo.name})
            self._store.remember(_owners_name(opened, path), {"owners": owners}, sync=False)
        return sorted({number for number, _ in found})

    def _recall(self, repo: solv.Repo, opened: OpenRepository, path: str) -> list[int] | None:
        known = self._store.recall_as(_owners_name(opened, path), _read_owners)
        if known is None or any(number >= repo.nsolvables for number in known):
            return None
        return [_first(repo) + number for number in known]

    # --- dependencies --------------------------------------------------------------------------

    def recall_provides(self) -> bool | None:
        """Add paths that dependencies name to the provides of their owners, as remembered.

        Returns whether there are any, None if it is not remembered who owns them. All packages must be those of
        repositories.
        """
        paths = self._paths()
        known = None if paths is None else self._store.recall_as(self._provides_name(paths), _read_provides)
        sizes = [repo.nsolvables for repo, _ in self.repositories]
        if known is None or not all(at < len(sizes) and number < sizes[at] for _, at, number in known):
            return None
        firsts = [_first(repo) for repo, _ in self.repositories]
        for path, at, number in known:
            self._pool.id2solvable(firsts[at] + number).add_provides(self._pool.Dep(path), _FILES)
        return bool(known)

    def find_provides(self, index: Callable[[], None]) -> None:
        """Load file lists, have libsolv add paths to provides, and remember what it added.

        These are paths that dependencies name. The pool must have an index of provides; `index` makes it anew.
        """
        paths = self._paths()
        before = self._provided(paths or ())
        self.load()
        index()
        if paths is not None:
            added = sorted(self._provided(paths) - before)
            self._store.remember(self._provides_name(paths), added, sync=False)

    def _paths(self) -> list[str] | None:
        """Return the paths that dependencies of all repositories name; None if there may be others."""
        found: set[str] = set()
        for _, opened in self.repositories:
            paths = path_dependencies(opened, self._store)
            if paths is None:
                return None
            found.update(paths)
        return sorted(found)

    def _provided(self, paths: Iterable[str]) -> set[_Provided]:
        """Return which packages' files satisfy dependencies on these paths, according to the index."""
        places = {repo.name: (at, _first(repo)) for at, (repo, _) in enumerate(self.repositories)}
        found: set[_Provided] = set()
        for path in paths:
            name = self._pool.str2id(path, False)
            for one in self._pool.whatprovides(name) if name else ():
                if one.repo.name in places and name in one.lookup_idarray(solv.SOLVABLE_PROVIDES, _FILES):
                    at, first = places[one.repo.name]
                    found.add((path, at, int(one.id) - first))
        return found

    def _provides_name(self, paths: list[str]) -> Digest:
        versions = [file_list_version(opened) for _, opened in self.repositories]
        return identity("paths provided", _FORMAT, repositories=versions, paths=paths, arch=self._arch)


def _first(repo: solv.Repo) -> int:
    """Return the number of a repository's first package; 0 if it has none."""
    return next((int(one.id) for one in repo.solvables), 0)


def _owners_name(opened: OpenRepository, path: str) -> Digest:
    return identity("owners of a path", _FORMAT, repository=file_list_version(opened), path=path)


def _read_owners(value: object) -> list[int]:
    if not isinstance(value, dict):
        raise TypeError("not the owners of a path")
    return [_natural(one) for one in value["owners"]]


def _read_provides(value: object) -> list[_Provided]:
    if not isinstance(value, list):
        raise TypeError("not the provides of packages")
    return [(str(path), _natural(at), _natural(number)) for path, at, number in value]


def _natural(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError("not a position")
    return value
