"""Loading of the platforms, add-ons and repositories of `repositories.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.beneath import ReadCache
from pipeline.errors import Problem, RecipeError
from pipeline.model.payload_limits import PayloadLimits
from pipeline.model.platform import (
    OFFERED_PREFIX,
    AddOn,
    PackageRepository,
    Platform,
    is_offered,
    variable_names,
)
from pipeline.model.rpm_database import RpmDatabase
from pipeline.recipes.add_ons import fitting_repositories, key_files
from pipeline.recipes.platform_lookup import Platforms
from pipeline.recipes.platform_schema import PlatformDocument, PlatformsDocument
from pipeline.recipes.problems import Problems, nearest, validate_document
from pipeline.recipes.recipe_schema import ANY_PLATFORM
from pipeline.recipes.repo_files import read_repo_file, read_variables
from pipeline.recipes.repository_fields import RepositoryDocument, RepositoryFileDocument
from pipeline.recipes.rpm_database_schema import database_of
from pipeline.yaml_documents import DocumentPath, YamlDocument, load_yaml

EXTENDS_DEPTH = 8

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-[^{}$]*\}")


_PLATFORMS_KEPT = 8
"""Files of platforms that are kept in memory while they are unchanged: a command reads one, or few."""

_kept: ReadCache[Platforms] = ReadCache(_PLATFORMS_KEPT)


def load_platforms(path: Path) -> Platforms:
    """Load the platforms of the file at `path`, once while it is unchanged.

    Raises RecipeError with every problem at once.
    """
    return _kept.get((path, Path.cwd()), lambda: _load(path))


def _load(path: Path) -> Platforms:
    document = load_yaml(path)
    problems = Problems()
    parsed = validate_document(PlatformsDocument, document, problems)
    problems.stop_if_any()
    if parsed is None:
        raise AssertionError("a document without problems has a value")
    reader = _Reader(parsed.platforms, document, problems, path.parent)
    add_ons = {
        name: AddOn(name, {one: reader.add_on_repositories(name, one, given) for one, given in found.platforms.items()})
        for name, found in parsed.add_ons.items()
    }
    reader.add_ons = add_ons
    platforms: dict[str, Platform] = {}
    for name, platform in parsed.platforms.items():
        if platform.refused is None:
            found = reader.platform(name, ())
            if name not in reader.broken:
                platforms[name] = found
        elif platform.repositories or platform.extends:
            path_of: DocumentPath = ("platforms", name, "refused")
            message = f"the platform '{name}' is refused and has repositories"
            problems.add("platform-contradiction", message, document, path_of, "remove one of the two")
    for name, add_on in parsed.add_ons.items():
        for family, listed in add_on.platforms.items():
            reader.check_add_on_variables(listed, family, platforms, ("add-ons", name, "platforms", family))
    problems.stop_if_any()
    refused = {name: found.refused for name, found in parsed.platforms.items() if found.refused is not None}
    broken = {name: RecipeError.of(list(dict.fromkeys(found))) for name, found in reader.broken.items()}
    return Platforms(platforms, refused, document.name, broken, add_ons)


class _Reader:
    def __init__(
        self, platforms: Mapping[str, PlatformDocument], document: YamlDocument, problems: Problems, folder: Path
    ) -> None:
        self._platforms = platforms
        self._document = document
        self._problems = problems
        self._folder = folder
        self.add_ons: Mapping[str, AddOn] = {}
        self.broken: dict[str, list[Problem]] = {}
        self._files: list[Path] = []
        self._watched: list[Path] = []

    def add_on_repositories(
        self, name: str, platform: str, listed: Sequence[RepositoryDocument]
    ) -> tuple[PackageRepository, ...]:
        """Return the repositories of the add-on `name` on a platform or family."""
        path: DocumentPath = ("add-ons", name, "platforms", platform)
        found: dict[str, PackageRepository] = {}
        for index, one in enumerate(listed):
            if one.id in found:
                message = f"duplicate repository '{one.id}' in this add-on"
                self._refuse("repository-duplicate", message, (*path, index, "id"), "give it another id", ())
            found[one.id] = self._repository(one, (*path, index), ())
        return tuple(found.values())

    def check_add_on_variables(
        self,
        listed: Sequence[RepositoryDocument],
        family: str,
        platforms: Mapping[str, Platform],
        path: DocumentPath,
    ) -> None:
        """Refuse variables of an add-on's repositories that no platform defines which it fits.

        A platform that cannot be used here might define them.
        """
        everywhere = family == ANY_PLATFORM
        fitting = [one for one in platforms.values() if everywhere or family in one.families]
        named = ((name, self._platforms[name]) for name in self.broken)
        unusable = [one for name, one in named if everywhere or family in (name, *one.families)]
        if fitting and not any(one.dnf_vars or one.extends for one in unusable):
            variables = {name: text for one in fitting for name, text in one.variables}
            variables |= {name: text for one in unusable for name, text in one.variables.items()}
            for index, repository in enumerate(listed):
                self._check_variables(repository, variables, (*path, index), ())

    def _put_on_top(
        self, name: str, families: Sequence[str], repositories: dict[str, PackageRepository], path: DocumentPath
    ) -> None:
        """Add the repositories of a platform's add-on."""
        found = fitting_repositories(self.add_ons, name, families)
        if isinstance(found, Problem):
            self._problems.add(found.code, found.message, self._document, path, found.hint or "")
            return
        for one in found:
            if repositories.setdefault(one.id, one) != one:
                message = f"the add-on '{name}' has a repository '{one.id}' too, with another definition"
                self._problems.add("repository-duplicate", message, self._document, path, "give one another id")

    def platform(self, name: str, below: tuple[str, ...]) -> Platform:
        """Return the platform `name` with all that it extends; `below` are those that extend it."""
        document = self._platforms[name]
        path: DocumentPath = ("platforms", name)
        if not below:
            self._files, self._watched = [], []
        base = self._base(name, document, path, below)
        outer = below[0] if below else name
        read = self._dnf_variables(document.dnf_vars, outer)
        variables = {**(dict(base.variables) if base else {}), **read, **document.variables}
        of_machine = {*(base.machine_variables if base else ()), *read} - document.variables.keys()
        repositories = {repository.id: repository for repository in (base.repositories if base else ())}
        families = tuple(dict.fromkeys((name, *document.families, *(base.families if base else ()))))
        for index, add_on in enumerate(document.add_ons):
            self._put_on_top(add_on, families, repositories, (*path, "add-ons", index))
        sources = {repository.id: repository for repository in (base.sources if base else ())}
        for key, listed, target in (
            ("repositories", document.repositories, repositories),
            ("sources", document.sources, sources),
        ):
            for index, repository in enumerate(listed):
                inner = (*path, key, index)
                if isinstance(repository, RepositoryFileDocument):
                    for one in self._repo_file(repository, variables, name, below):
                        if one.id in repositories or one.id in sources:
                            message = f"duplicate repository '{one.id}' in this platform"
                            hint = "list other 'sections' of the file"
                            self._refuse("repository-duplicate", message, (*inner, "file"), hint, below)
                        target[one.id] = one
                    continue
                if repository.id in repositories or repository.id in sources:
                    message = f"duplicate repository '{repository.id}' in this platform"
                    self._refuse("repository-duplicate", message, (*inner, "id"), "give it another id", below)
                found = self._repository(repository, inner, below)
                if repository.enabled:
                    target[repository.id] = found
                self._check_variables(repository, variables, inner, below)
        for key, text in document.variables.items():
            if "$" in _ENVIRONMENT.sub("", text):
                hint = "write environment variables as ${NAME:-default}"
                message = f"'{text}' is not a value with ${{NAME:-default}}"
                self._refuse("variable-malformed", message, (*path, "variables", key), hint, below)
            for given in _ENVIRONMENT.findall(text):
                if not is_offered(given):
                    hint = f"rename it to {OFFERED_PREFIX}{given}, here and where it is set"
                    message = f"platforms cannot use the environment variable {given}"
                    self._refuse("variable-not-offered", message, (*path, "variables", key), hint, below)
        # Of one that extends another the problem is there: the other is unknown, refused, or lacks repositories itself.
        if not repositories and not below and document.extends is None and name not in self.broken:
            message = f"the platform '{name}' has no repositories"
            self._refuse("key-missing", message, path, "add 'repositories:', or 'refused:' with a reason", below)
        architectures = tuple(document.architectures or (base.architectures if base else ("x86_64",)))
        for path_of_key in key_files((*repositories.values(), *sources.values()), variables, architectures):
            self._keep(path_of_key, sent=True)
        return Platform(
            name=name,
            repositories=tuple(repositories.values()),
            variables=tuple(sorted(variables.items())),
            rpm_database=database_of(document.rpm_database, base.rpm_database if base else RpmDatabase()),
            payload_limits=document.payload_limits.limits.over(base.payload_limits if base else PayloadLimits()),
            architectures=architectures,
            description=document.description,
            sources=tuple(sources.values()),
            files=tuple(dict.fromkeys(self._files)),
            watched=tuple(dict.fromkeys(self._watched)),
            machine_variables=frozenset(of_machine),
            families=families,
            add_ons=tuple(dict.fromkeys((*(base.add_ons if base else ()), *document.add_ons))),
        )

    def _repo_file(
        self, document: RepositoryFileDocument, variables: Mapping[str, str], name: str, below: tuple[str, ...]
    ) -> tuple[PackageRepository, ...]:
        """Return the repositories of a `.repo` file; its mistakes count as the platform's."""
        outer = below[0] if below else name
        try:
            found = read_repo_file(document, self._folder)
        except RecipeError as error:
            self.broken.setdefault(outer, []).extend(error.problems)
            return ()
        self._keep(found.path, sent=not found.secret)
        known = variable_names(variables)
        for repository in found.repositories:
            found_in = (one for text in _texts(repository) for one in _VARIABLE.findall(text))
            for used in sorted({braced or plain for braced, plain in found_in} if not below else ()):
                if used not in known:
                    problem = Problem(
                        "variable-undefined",
                        f"the variable '${used}' is not defined",
                        f"{found.path.name}: [{repository.id}]",
                        "define it under 'variables' of the platform, or name folders under 'dnf-vars'",
                    )
                    self.broken.setdefault(outer, []).append(problem)
        return found.repositories

    def _dnf_variables(self, folders: Sequence[str], outer: str) -> dict[str, str]:
        try:
            found = read_variables(folders, self._folder)
        except RecipeError as error:
            self.broken.setdefault(outer, []).extend(error.problems)
            return {}
        for name in folders:
            self._keep(self._folder / name, sent=True)
        return found

    def _keep(self, path: Path, *, sent: bool) -> None:
        """Note a file or folder that was read.

        `sent`: readers elsewhere may have it, if it is beside the definitions.
        """
        self._watched.append(path.absolute())
        if sent and path.absolute().is_relative_to(self._folder.absolute()):
            self._files.append(path.absolute())

    def _base(
        self, name: str, document: PlatformDocument, path: DocumentPath, below: tuple[str, ...]
    ) -> Platform | None:
        base = document.extends
        if base is None:
            return None
        inner = (*path, "extends")
        if base not in self._platforms:
            others = [one for one, found in self._platforms.items() if one != name and found.refused is None]
            near = nearest(base, others)
            hint = f"did you mean '{near}'?" if near else _known_platforms(others)
            self._refuse("platform-unknown", f"no platform '{base}'", inner, hint, below)
            return None
        if base in (*below, name) or len(below) >= EXTENDS_DEPTH:
            chain = " → ".join([*below, name, base])
            self._refuse(
                "platform-cycle", f"platforms form a cycle through 'extends': {chain}", inner, "break the cycle", ()
            )
            return None
        if self._platforms[base].refused is not None:
            message = f"the platform '{base}' is refused: {self._platforms[base].refused}"
            self._refuse("platform-refused", message, inner, "extend another platform", below)
            return None
        return self.platform(base, (*below, name))

    def _refuse(self, code: str, message: str, path: DocumentPath, hint: str, below: tuple[str, ...]) -> None:
        """Add a problem, once: a platform is also read for each one that extends it."""
        if not below:
            self._problems.add(code, message, self._document, path, hint)

    def _repository(
        self, document: RepositoryDocument, path: DocumentPath, below: tuple[str, ...]
    ) -> PackageRepository:
        given = [key for key in ("baseurls", "metalink", "mirrorlist") if getattr(document, key)]
        if len(given) != 1:
            listed = " and ".join(f"'{key}'" for key in given) or "none"
            message = f"repository '{document.id}' must have one location, but has {listed}"
            hint = "write exactly one of baseurls, metalink, mirrorlist"
            self._refuse("repository-location", message, path, hint, below)
        if document.proxy_username and not document.proxy:
            message = "'proxy_username' is given without 'proxy'"
            self._refuse("access-incomplete", message, (*path, "proxy_username"), "name the proxy with 'proxy'", below)
        return PackageRepository(
            id=document.id,
            baseurls=tuple(document.baseurls),
            metalink=document.metalink,
            mirrorlist=document.mirrorlist,
            keys=tuple(document.keys),
            priority=document.priority,
            cost=document.cost,
            signed_metadata=document.signed_metadata,
            exclude=(*document.exclude, *document.excludepkgs),
            include=tuple(document.includepkgs),
            module_hotfixes=document.module_hotfixes,
            access=document.access,
            accept=tuple(sorted(set(document.accept))),
            fingerprints=tuple(sorted(set(document.fingerprints))),
            folder=self._folder.absolute(),
        )

    def _check_variables(
        self,
        document: RepositoryDocument,
        variables: Mapping[str, str],
        path: DocumentPath,
        below: tuple[str, ...],
    ) -> None:
        known = variable_names(variables)
        texts: list[tuple[tuple[str | int, ...], str]] = [
            *((("baseurls", index), text) for index, text in enumerate(document.baseurls)),
            *((("keys", index), text) for index, text in enumerate(document.keys)),
            (("metalink",), document.metalink or ""),
            (("mirrorlist",), document.mirrorlist or ""),
            *(
                ((key,), getattr(document, key) or "")
                for key in ("sslcacert", "sslclientcert", "sslclientkey", "proxy")
            ),
        ]
        for inner, text in texts:
            for braced, plain in _VARIABLE.findall(text):
                name = braced or plain
                if name not in known:
                    near = nearest(name, known)
                    hint = f"did you mean '${near}'?" if near else "define it under 'variables'"
                    message = f"the variable '${name}' is not defined"
                    self._refuse("variable-undefined", message, (*path, *inner), hint, below)


def _known_platforms(names: Sequence[str]) -> str:
    if not names:
        return "define it in this file, or remove 'extends:' and list 'repositories:'"
    return f"platforms of this file: {', '.join(names)}"


def _texts(repository: PackageRepository) -> tuple[str, ...]:
    """Return all texts of a repository that may have variables."""
    access = repository.access
    places = (repository.metalink or "", repository.mirrorlist or "", access.sslcacert, access.sslclientcert)
    return (*repository.baseurls, *repository.keys, *places, access.sslclientkey, access.proxy)
