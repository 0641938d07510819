"""`repositories.yaml`: the platforms that recipes build on, and their repositories."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.errors import RecipeError
from pipeline.model.platform import (
    OFFERED_PREFIX,
    PackageRepository,
    Platform,
    is_offered,
    variable_names,
)
from pipeline.model.rpm_database import DATABASE_FOLDERS
from pipeline.recipes.fields import (
    Architecture,
    Line,
    Name,
    Strict,
    TargetPath,
    TextValue,
    VariableName,
)
from pipeline.recipes.problems import Problems, nearest, validate_document
from pipeline.recipes.repository_fields import RepositoryDocument
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
        "`release` is given; may use `${NAME:-default}` of the environment, where NAME is RELBUILD_MIRROR or begins "
        "with RELBUILD_VAR_",
    )
    rpm_database: TargetPath | None = Field(
        default=None,
        alias="rpm-database",
        description=f"where its own rpm has its database; default: {DEFAULT_DATABASE}",
    )
    repositories: list[RepositoryDocument] = Field(default=[], description="what it is made of")
    sources: list[RepositoryDocument] = Field(
        default=[], description="where its source packages are, for licences that demand them; never resolved from"
    )


class PlatformsDocument(Strict):
    """The file `repositories.yaml`."""

    platforms: dict[Name, PlatformDocument] = Field(description="platforms by name")


@dataclass(frozen=True, slots=True)
class Platforms(Mapping[str, Platform]):
    """The platforms by name.

    `refused` are names of platforms that nothing can be built on, with the reason.
    """

    platforms: Mapping[str, Platform]
    refused: Mapping[str, str]
    name: str = "repositories.yaml"

    def __getitem__(self, name: str) -> Platform:
        return self.platforms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.platforms)

    def __len__(self) -> int:
        return len(self.platforms)

    def find(self, name: str, *, place: str | None = None) -> Platform:
        """The platform `name`; `place` is who asked. Raises RecipeError `platform-refused`,
        `platform-unknown`."""
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
    """The platforms of the file at `path`. Raises RecipeError with every problem at once."""
    document = load_yaml(path)
    problems = Problems()
    parsed = validate_document(PlatformsDocument, document, problems)
    problems.stop_if_any()
    if parsed is None:
        raise AssertionError("a document without problems has a value")
    reader = _Reader(parsed.platforms, document, problems)
    platforms: dict[str, Platform] = {}
    for name, platform in parsed.platforms.items():
        if platform.refused is None:
            platforms[name] = reader.platform(name, ())
        elif platform.repositories or platform.extends:
            path_of: DocumentPath = ("platforms", name, "refused")
            message = f"the platform '{name}' is refused and has repositories"
            problems.add("platform-contradiction", message, document, path_of, "remove one of the two")
    problems.stop_if_any()
    refused = {name: found.refused for name, found in parsed.platforms.items() if found.refused is not None}
    return Platforms(platforms, refused, document.name)


class _Reader:
    def __init__(self, platforms: Mapping[str, PlatformDocument], document: YamlDocument, problems: Problems) -> None:
        self._platforms = platforms
        self._document = document
        self._problems = problems

    def platform(self, name: str, below: tuple[str, ...]) -> Platform:
        """The platform `name` with all that it extends; `below` are those that extend it."""
        document = self._platforms[name]
        path: DocumentPath = ("platforms", name)
        base = self._base(name, document, path, below)
        variables = {**(dict(base.variables) if base else {}), **document.variables}
        repositories = {repository.id: repository for repository in (base.repositories if base else ())}
        sources = {repository.id: repository for repository in (base.sources if base else ())}
        for key, listed, target in (
            ("repositories", document.repositories, repositories),
            ("sources", document.sources, sources),
        ):
            for index, repository in enumerate(listed):
                inner = (*path, key, index)
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
        if not repositories and not below:
            message = f"the platform '{name}' has no repositories"
            self._refuse("key-missing", message, path, "add 'repositories:', or 'refused:' with a reason", below)
        return Platform(
            name=name,
            repositories=tuple(repositories.values()),
            variables=tuple(sorted(variables.items())),
            rpm_database=document.rpm_database or (base.rpm_database if base else DEFAULT_DATABASE),
            architectures=tuple(document.architectures or (base.architectures if base else ("x86_64",))),
            description=document.description,
            sources=tuple(sources.values()),
        )

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
        """A platform that others extend is read once for each, and complained about for itself only."""
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
