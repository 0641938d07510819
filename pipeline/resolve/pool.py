"""The libsolv pool: load repositories, local and installed packages; query providers.

The pool is set up as libdnf sets it up (dnf-sack.cpp, Repo.cpp): rpm's semantics, the priority negated,
disabled packages visible to provides. File lists are large, so they are loaded only when a request
or a reachable requirement names a path that primary metadata leaves out. Who owns a requested path is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce

import solv

from pipeline.digest import Digest
from pipeline.errors import ResolutionError, VerificationError
from pipeline.model.header import Dependency, PackageHeader
from pipeline.model.package import Nevra, Package
from pipeline.progress import QUIET, Progress
from pipeline.repos import LOCAL_REPOSITORY, OpenRepository
from pipeline.resolve.file_lists import FileLists
from pipeline.resolve.hidden_packages import HiddenPackage
from pipeline.resolve.listed_files import names_unlisted_path
from pipeline.resolve.metadata_tags import TAG_LIMIT
from pipeline.resolve.solv_cache import load_solv, unlisted_dependencies
from pipeline.store import Store

ASSUMED_REPO = "@assumed"
"""Name of the repository, and of the one package in it, that provides what `assume-installed` lists."""

PARENT_REPO = "@parent"
"""Name of the repository of the parent image's packages. Like the assumed ones they count as installed."""

_NAMES_AT_ONCE = 256
"""Names of packages that are asked about at once: each is a level of recursion in libsolv."""

_PREREQ = (1 << 6) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12)
"""RPMSENSE_PREREQ and the SCRIPT_* bits (rpmds.h): needed while scriptlets run."""


class PackagePool:
    """A libsolv pool with repositories; solvables are given by their number in it."""

    def __init__(self, arch: str, *, store: Store, progress: Progress = QUIET) -> None:
        self.arch = arch
        self._store = store
        self._progress = progress
        self.pool = solv.Pool()
        self.pool.setdisttype(solv.Pool.DISTTYPE_RPM)
        self.pool.setarch(arch)
        self.pool.set_flag(solv.Pool.POOL_FLAG_WHATPROVIDESWITHDISABLED, 1)
        # A second index, for faster answers: they are asked some hundred times, and it takes longer to make.
        self.pool.set_flag(solv.Pool.POOL_FLAG_NOWHATPROVIDESAUX, 1)
        # Multilib: on in the libsolv that Fedora and EL build for dnf (-DFEDORA), off in others' builds.
        self.pool.set_flag(solv.Pool.POOL_FLAG_IMPLICITOBSOLETEUSESCOLORS, 1)
        self._file_lists = FileLists(self.pool, store, progress)
        self._local: dict[int, Package] = {}
        self._disabled: set[int] = set()
        self._hidden: dict[int, HiddenPackage] = {}
        self._looked_up: dict[str, solv.Dep] = {}
        self._asked: tuple[Sequence[str], solv.Dep | None] = ((), None)
        """Names of packages, and the dependency on any of them."""
        self._obsoleted: dict[str, bool] = {}
        """Names of packages that were asked about, and if any package, disabled or not, obsoletes one of this name."""
        self.installed: frozenset[int] = frozenset()
        self.assumed: int | None = None
        self.has_filelists = False
        """The index of provides has the paths that dependencies name, also those that only file lists have."""
        self._all_listed = True
        """No dependency in a repository names a path that primary metadata leaves out."""
        self.has_headers = False
        """There are packages from files or of a parent image, whose dependencies no repository's metadata has."""

    # --- loading -------------------------------------------------------------------------------

    def add_repository(self, opened: OpenRepository) -> None:
        """Load a repository's primary metadata. Raises VerificationError `metadata-malformed`."""
        repo = self.pool.add_repo(opened.repository.id)
        repo.priority = -opened.repository.priority
        repo.subpriority = -opened.repository.cost
        load_solv(repo, opened, "primary", store=self._store, progress=self._progress)
        self._all_listed = self._all_listed and unlisted_dependencies(opened, self._store) == []
        self._file_lists.repositories.append((repo, opened))

    def use_filelists(self) -> None:
        """Load the file lists of all repositories, and rebuild the index of provides with them."""
        if self.has_filelists:
            return
        self._file_lists.load()
        self.index()
        self.has_filelists = True

    def listed(self, text: str, *, glob: bool, everywhere: bool) -> list[int]:
        """Return the packages that have a path, or one that a glob matches; not disabled ones.

        They are looked for in primary metadata; `everywhere` also in file lists: for a glob these must be in use.
        libsolv does not look for other paths in file lists that are loaded (repodata_filelistfilter_matches).
        """
        if everywhere and not glob:
            found = (self.pool.id2solvable(one) for one in self._file_lists.owners(text))
            return self.enabled(one for one in found if one.installable())
        flags = solv.Selection.SELECTION_FILELIST | (solv.Selection.SELECTION_GLOB if glob else 0)
        return self.enabled(self.pool.select(text, flags).solvables())

    def add_local(self, header: PackageHeader, size: int, location: str) -> int:
        """Add a package by path.

        It hides those of the same name and architecture in repositories.
        """
        solvable = self._add(self._repo(LOCAL_REPOSITORY), header)
        self._local[solvable] = Package(
            header.nevra,
            header.checksum,
            size,
            LOCAL_REPOSITORY,
            location,
            header.build_time,
            header.source_rpm,
            sum(file.size for file in header.files),
        )
        return solvable

    def add_installed(self, headers: Iterable[PackageHeader]) -> None:
        """Add installed packages, which stay as they are."""
        repo = self._repo(PARENT_REPO)
        self.pool.installed = repo
        self.installed = frozenset(self._add(repo, header) for header in headers)

    def _add(self, repo: solv.Repo, header: PackageHeader) -> int:
        """Add a package from its header."""
        self.has_headers = True
        solvable = repo.add_solvable()
        nevra = header.nevra
        solvable.name, solvable.evr, solvable.arch = nevra.name, nevra.evr, nevra.arch
        solvable.add_provides(self.pool.Dep(nevra.name).Rel(solv.REL_EQ, self.pool.Dep(nevra.evr)))
        for key, dependencies in (
            (solv.SOLVABLE_PROVIDES, header.provides),
            (solv.SOLVABLE_REQUIRES, header.requires),
            (solv.SOLVABLE_CONFLICTS, header.conflicts),
            (solv.SOLVABLE_OBSOLETES, header.obsoletes),
            (solv.SOLVABLE_RECOMMENDS, header.recommends),
            (solv.SOLVABLE_SUPPLEMENTS, header.supplements),
        ):
            for dependency in dependencies:
                if dependency.name.startswith("rpmlib("):
                    continue
                marker = 1 if key == solv.SOLVABLE_REQUIRES and dependency.flags & _PREREQ else -1
                solvable.add_deparray(key, self._dependency(dependency), marker)
        for file in header.files:  # its own paths satisfy file requirements
            solvable.add_provides(self.pool.Dep(file.path))
        return int(solvable.id)

    def assume(self, texts: Sequence[str]) -> None:
        """Add an installed package that provides `texts`."""
        repo = self._repo(PARENT_REPO if self.installed else ASSUMED_REPO)
        self.pool.installed = repo
        solvable = repo.add_solvable()
        solvable.name, solvable.evr, solvable.arch = ASSUMED_REPO, "1-1", "noarch"
        for text in texts:
            solvable.add_provides(self.dependency(text))
        self.assumed = int(solvable.id)

    def _repo(self, name: str) -> solv.Repo:
        return next((repo for repo in self.pool.repos if repo.name == name), None) or self.pool.add_repo(name)

    def disable(self, solvables: Iterable[int]) -> None:
        """Disable further solvables, but for installed ones."""
        self._disabled.update(set(solvables) - self.installed)
        self.pool.set_disabled_list(sorted(self._disabled))

    def hide(self, solvables: Mapping[int, HiddenPackage]) -> None:
        """Disable what modules hide, and remember why."""
        self._hidden = dict(solvables)
        self.disable(solvables)

    def hidden(self, solvable: int) -> HiddenPackage | None:
        """Return the reason why modules hide a package, or None if they do not."""
        return self._hidden.get(solvable)

    def enable_all(self) -> None:
        """Enable all solvables again."""
        self._disabled.clear()
        self._hidden.clear()
        self.pool.set_disabled_list([])

    def index(self) -> None:
        """Build the index of provides; to be called after loading and before queries."""
        self.pool.addfileprovides()
        self.pool.createwhatprovides()
        self._obsoleted.clear()

    def look_up(self, texts: Iterable[str]) -> None:
        """Look up dependencies that will be asked about, before there is an index.

        With the index libsolv drops its tables of strings and of relations, and for the next that it is asked about it
        makes them again: 20 ms among 69,000 packages, more than it takes to choose some hundred of them.
        """
        for text in texts:
            if not text.startswith("("):  # A malformed one is an error of its request.
                self._looked_up[text] = self.dependency(text)
        names = [text for text, dependency in self._looked_up.items() if dependency.str() == text]
        self._asked = self._any_of(names[:_NAMES_AT_ONCE])

    # --- queries ---------------------------------------------------------------------------------

    def solvables(self) -> Iterator[solv.XSolvable]:
        """Yield all packages of repositories, local and installed ones, also disabled ones."""
        return (one for one in self.pool.solvables if one.id != self.assumed)

    def dependency(self, text: str) -> solv.Dep:
        """Parse a dependency: `name`, `name >= evr` or a rich dependency in brackets.

        Raises ResolutionError `dependency-malformed`.
        """
        if text in self._looked_up:
            return self._looked_up[text]
        if text.startswith("("):
            if len(text) > TAG_LIMIT:  # each bracket takes a part of the stack of libsolv's parser
                raise ResolutionError("dependency-malformed", f"'{text[:200]}…' is too long a rich dependency")
            rich = self.pool.parserpmrichdep(text)
            if rich is None:
                raise ResolutionError("dependency-malformed", f"'{text[:200]}' is not a valid rich dependency")
            return rich
        found = re.fullmatch(r"(\S+)\s+(<=|>=|<|>|==?)\s+(\S+)", text)
        if not found:
            return self.pool.Dep(text)
        name, operator, evr = found.groups()
        flags = (solv.REL_LT if "<" in operator else 0) | (solv.REL_GT if ">" in operator else 0)
        flags |= solv.REL_EQ if "=" in operator else 0
        return self.pool.Dep(name).Rel(flags, self.pool.Dep(evr))

    def _dependency(self, dependency: Dependency) -> solv.Dep:
        if dependency.name.startswith("(") or not dependency.evr:
            return self.dependency(dependency.name)
        flags = (solv.REL_LT if dependency.flags & 2 else 0) | (solv.REL_GT if dependency.flags & 4 else 0)
        flags |= solv.REL_EQ if dependency.flags & 8 else 0
        return self.pool.Dep(dependency.name).Rel(flags, self.pool.Dep(dependency.evr))

    def providers(self, dependency: int | solv.Dep) -> list[int]:
        """Return the packages that provide a dependency, sorted.

        Disabled ones and assumed ones are left out.
        """
        found = (int(one.id) for one in self.pool.whatprovides(dependency))
        return sorted(one for one in found if one not in self._disabled and one != self.assumed)

    def called(self, name: str) -> list[int]:
        """Return the packages with this name that can be installed, sorted; not disabled ones.

        Every package provides its name, so that the index has them: a selection by name looks at all packages.
        """
        known = self._looked_up.get(name)
        number = self.pool.str2id(name, False) if known is None else known.id
        return self.enabled(one for one in self.pool.whatprovides(number) if one.nameid == number) if number else []

    def obsoleters(self, solvables: Iterable[int]) -> Iterator[int]:
        """Yield the packages that obsolete any of `solvables`; not disabled ones.

        Obsoletes match by name: POOL_FLAG_OBSOLETEUSESPROVIDES is off, as in dnf.
        """
        every = [self.pool.id2solvable(one) for one in solvables]
        self._find_obsoleted({one.name for one in every})
        for one in every:
            if self._obsoleted[one.name]:
                yield from self.enabled(self.pool.whatmatchessolvable(solv.SOLVABLE_OBSOLETES, one))

    def _find_obsoleted(self, names: Collection[str]) -> None:
        """Find out which of these names packages obsolete.

        libsolv has no index of obsoletes and looks at all packages, so it is asked about many names at once.
        """
        if not self._obsoleted:
            self._note_obsoleted(*self._asked)
        fresh = sorted(name for name in names if name not in self._obsoleted)
        for at in range(0, len(fresh), _NAMES_AT_ONCE):
            self._note_obsoleted(*self._any_of(fresh[at : at + _NAMES_AT_ONCE]))

    def _any_of(self, names: Sequence[str]) -> tuple[Sequence[str], solv.Dep | None]:
        """Return names, and the dependency on any of them."""
        parts = (self.pool.Dep(name) for name in names)
        return names, reduce(lambda one, other: one.Rel(solv.REL_OR, other), parts) if names else None

    def _note_obsoleted(self, names: Sequence[str], any_of_them: solv.Dep | None) -> None:
        """Ask about all packages, also disabled ones: the next recipe disables others."""
        if self._disabled:
            self.pool.set_disabled_list([])
        found = self.pool.whatmatchesdep(solv.SOLVABLE_OBSOLETES, any_of_them) if names else []
        if self._disabled:
            self.pool.set_disabled_list(sorted(self._disabled))
        for name in names:
            dependency = self.pool.Dep(name) if found else None
            self._obsoleted[name] = any(one.matchesdep(solv.SOLVABLE_OBSOLETES, dependency) for one in found)

    def enabled(self, solvables: Iterable[solv.XSolvable]) -> list[int]:
        """Return the numbers of solvables that are neither disabled nor source packages, sorted."""
        return sorted(
            int(one.id)
            for one in solvables
            if one.id not in self._disabled and one.id != self.assumed and one.arch not in {"src", "nosrc"}
        )

    def nevra(self, solvable: int) -> Nevra:
        """Return a solvable's NEVRA."""
        one = self.pool.id2solvable(solvable)
        epoch, _, rest = one.evr.rpartition(":")
        version, _, release = rest.partition("-")
        return Nevra(one.name, int(epoch or 0), version, release, one.arch)

    def package(self, solvable: int) -> Package:
        """Return the package that a solvable stands for.

        Raises VerificationError `checksum-weak` where the metadata has no sha256, `location-elsewhere` where it is
        outside its repository.
        """
        if solvable in self._local:
            return self._local[solvable]
        one = self.pool.id2solvable(solvable)
        nevra = self.nevra(solvable)
        checksum = one.lookup_checksum(solv.SOLVABLE_CHECKSUM)
        if checksum is None or checksum.typestr() != "sha256":
            raise VerificationError(
                "checksum-weak",
                f"the repository has no sha256 of {nevra}",
                place=f"repository {one.repo.name}",
                hint="the repository must be indexed with sha256 (createrepo_c --checksum sha256)",
            )
        location = one.lookup_location()[0]
        if one.lookup_str(solv.SOLVABLE_MEDIABASE):
            raise VerificationError(
                "location-elsewhere",
                f"{nevra} is outside of its repository (xml:base)",
                place=f"repository {one.repo.name}",
                hint="define the location it points to as a repository of its own",
            )
        return Package(
            nevra,
            Digest(checksum.hex()),
            int(one.lookup_num(solv.SOLVABLE_DOWNLOADSIZE)),
            one.repo.name,
            location,
            int(one.lookup_num(solv.SOLVABLE_BUILDTIME)),
            one.lookup_sourcepkg() or "",
            int(one.lookup_num(solv.SOLVABLE_INSTALLSIZE)),
        )

    # --- are file lists needed? --------------------------------------------------------------------

    def needs_filelists(self, start: Iterable[int], *, weak: bool) -> bool:
        """Return True if a path that primary metadata leaves out may be needed.

        That is so if any requirement reachable from `start`, over any provider, can name such a path.

        It errs on the side of True: a missing path would silently change the resolution.
        """
        if self.has_filelists or (self._all_listed and not self.has_headers):
            return False
        keys = [solv.SOLVABLE_REQUIRES, solv.SOLVABLE_CONFLICTS]
        keys += [solv.SOLVABLE_RECOMMENDS, solv.SOLVABLE_SUPPLEMENTS] if weak else []
        if weak:  # anything may supplement anything
            start = [int(one.id) for one in self.pool.solvables]
        seen = set(start) | self.installed  # whose requirements are satisfied, or ignored
        waiting = sorted(seen - self.installed)
        asked: set[int] = set()
        while waiting:
            solvable = self.pool.id2solvable(waiting.pop())
            for key in keys:
                for number in solvable.lookup_idarray(key, 0):  # 0: those of scriptlets too
                    if number in asked:
                        continue
                    asked.add(number)
                    if names_unlisted_path(self.pool.dep2str(number)):
                        return True
                    if key == solv.SOLVABLE_CONFLICTS:
                        continue
                    for one in self.pool.whatprovides(number):
                        if one.id not in seen:
                            seen.add(one.id)
                            waiting.append(one.id)
        return False
