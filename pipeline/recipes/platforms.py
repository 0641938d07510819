"""Models of `repositories.yaml`, and loading of its platforms and repositories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path

from pydantic import Field

from pipeline.errors import Problem, RecipeError, RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.payload_limits import PayloadLimits
from pipeline.model.platform import (
    OFFERED_PREFIX,
    PackageRepository,
    Platform,
    is_offered,
    is_relative_key,
    release_variables,
    variable_names,
)
from pipeline.model.rpm_database import DATABASE_FOLDERS, RpmDatabase
from pipeline.recipes.fields import (
    Architecture,
    Line,
    Name,
    Strict,
    TextValue,
    VariableName,
)
from pipeline.recipes.payload_schema import PayloadLimitsDocument
from pipeline.recipes.problems import Problems, nearest, validate_document
from pipeline.recipes.repo_files import read_repo_file, read_variables
from pipeline.recipes.repository_fields import RepositoryDocument, RepositoryFileDocument, RepositoryItem
from pipeline.recipes.rpm_database_schema import RpmDatabaseItem, database_of
from pipeline.yaml_documents import DocumentPath, YamlDocument, load_yaml

DEFAULT_DATABASE = DATABASE_FOLDERS[0]
EXTENDS_DEPTH = 8

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*):-[^{}$]*\}")


class PlatformDocument(Strict):
    """Repositories that fit together, with what is particular about the distribution."""

    description: TextValue = Field(default="", description="for people")
    refused: Line | None = Field(default=None, description="why the platform is refused; replaces `repositories`")
    extends: Name | None = Field(
        default=None, description="a platform whose repositories and settings this one adds to"
    )
    architectures: list[Architecture] | None = Field(default=None, description="what it exists for")
    variables: dict[VariableName, TextValue] = Field(
        default={},
        description="values for `$name` in URLs and keys, beside `$arch`, `$basearch`, and `$releasever` where "
        "`release` is given; may use `${NAME:-default}` of the environment, where NAME is RELBUILD_MIRROR, "
        "RELBUILD_REAL or begins with RELBUILD_VAR_",
    )
    payload_limits: PayloadLimitsDocument = Field(
        default=PayloadLimitsDocument(), alias="payload-limits", description="what a package may unpack to"
    )
    rpm_database: RpmDatabaseItem | None = Field(
        default=None,
        alias="rpm-database",
        description="where its own rpm has its database: the folder, or the folder and the format; "
        f"default: {DEFAULT_DATABASE}",
    )
    dnf_vars: list[Line] = Field(
        default=[],
        alias="dnf-vars",
        description="folders of variables as dnf has them, a file for each: /etc/dnf/vars, /etc/yum/vars, or one "
        "beside this file; `variables` go before",
    )
    repositories: list[RepositoryItem] = Field(default=[], description="what it is made of")
    sources: list[RepositoryItem] = Field(
        default=[], description="where its source packages are, for licences that demand them; never resolved from"
    )


class PlatformsDocument(Strict):
    """The file `repositories.yaml`."""

    platforms: dict[Name, PlatformDocument] = Field(description="platforms by name")


@dataclass(frozen=True, slots=True)
class Platforms(Mapping[str, Platform]):
    """The platforms by name.

    `refused` are names of platforms that nothing can be built on, with the reason. `broken` are those whose `.repo`
    files or variables cannot be used here: another machine's platforms keep nobody from using the rest.
    """

    platforms: Mapping[str, Platform]
    refused: Mapping[str, str]
    name: str = "repositories.yaml"
    broken: Mapping[str, RelbuildError] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Platform:
        return self.platforms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.platforms)

    def __len__(self) -> int:
        return len(self.platforms)

    def find(self, name: str, *, place: str | None = None) -> Platform:
        """Return the platform `name`; `place` is the place of the name, for errors.

        Raises RecipeError `platform-refused`, `platform-unknown`, and as `read_repo_file` and `read_variables`.
        """
        if name in self.broken:
            raise self.broken[name]
        if name in self.refused:
            raise RecipeError(
                "platform-refused",
                f"the platform '{name}' is refused: {self.refused[name]}",
                place=place,
                hint="choose another platform",
            )
        if name not in self.platforms:
            near = nearest(name, self.platforms)
            raise RecipeError(
                "platform-unknown",
                f"no platform '{name}' in {self.name}",
                place=place,
                hint=f"did you mean '{near}'?" if near else f"platforms: {', '.join(self.platforms)}",
            )
        return self.platforms[name]


def load_platforms(path: Path) -> Platforms:
    """Load the platforms of the file at `path`. Raises RecipeError with every problem at once."""
    document = load_yaml(path)
    problems = Problems()
    parsed = validate_document(PlatformsDocument, document, problems)
    problems.stop_if_any()
    if parsed is None:
        raise AssertionError("a document without problems has a value")
    reader = _Reader(parsed.platforms, document, problems, path.parent)
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
    problems.stop_if_any()
    refused = {name: found.refused for name, found in parsed.platforms.items() if found.refused is not None}
    broken = {name: RecipeError.of(list(dict.fromkeys(found))) for name, found in reader.broken.items()}
    return Platforms(platforms, refused, document.name, broken)


class _Reader:
    def __init__(
        self, platforms: Mapping[str, PlatformDocument], document: YamlDocument, problems: Problems, folder: Path
    ) -> None:
        self._platforms = platforms
        self._document = document
        self._problems = problems
        self._folder = folder
        self.broken: dict[str, list[Problem]] = {}
        self._files: list[Path] = []
        self._watched: list[Path] = []

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
        if not repositories and not below and name not in self.broken:
            message = f"the platform '{name}' has no repositories"
            self._refuse("key-missing", message, path, "add 'repositories:', or 'refused:' with a reason", below)
        architectures = tuple(document.architectures or (base.architectures if base else ("x86_64",)))
        for path_of_key in _key_files((*repositories.values(), *sources.values()), variables, architectures):
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
            near = nearest(base, self._platforms)
            hint = f"did you mean '{near}'?" if near else f"platforms: {', '.join(self._platforms)}"
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


def _key_files(
    repositories: Iterable[PackageRepository], variables: Mapping[str, str], architectures: Iterable[str]
) -> Iterator[Path]:
    """Yield the key files beside the definitions.

    A name with a variable of the environment is left out.
    """
    own = {**release_variables(variables), **variables}
    named = [(one.folder, key) for one in repositories for key in one.keys if one.folder and is_relative_key(key)]
    for arch in architectures:
        known = {"arch": arch, "basearch": arch, **own}
        for folder, key in named:
            path = _VARIABLE.sub(partial(_value, known), key)
            if "$" not in path:
                yield folder / path


def _value(known: Mapping[str, str], found: re.Match[str]) -> str:
    return known.get(found.group(1) or found.group(2), found.group())


def _texts(repository: PackageRepository) -> tuple[str, ...]:
    """Return all texts of a repository that may have variables."""
    access = repository.access
    places = (repository.metalink or "", repository.mirrorlist or "", access.sslcacert, access.sslclientcert)
    return (*repository.baseurls, *repository.keys, *places, access.sslclientkey, access.proxy)
