"""Data classes for RPM repositories and platforms, and the variables that they may name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.payload_limits import PayloadLimits
from pipeline.model.rpm_database import RpmDatabase
from pipeline.model.signing_key import AcceptedSignature

OFFERED_PREFIX: Final = "RELBUILD_VAR_"
SECRET_PREFIX: Final = "RELBUILD_SECRET_"  # noqa: S105  the names' prefix, no secret
"""Variables of the environment that may hold a secret of a repository.

They never become part of a URL, and are not sent to the workers of a cluster."""
_URL = re.compile(r"[a-z]+:/")
_OFFERED = re.compile(rf"RELBUILD_(?:MIRROR|REAL)|{OFFERED_PREFIX}[A-Za-z0-9_]+")


def is_offered(name: str) -> bool:
    """Return whether a platform's definition may use this environment variable.

    Its value becomes part of URLs, so only variables that are set for that purpose are allowed: an edited definition
    could send any other (a token, a password) to the host that it names.
    """
    return _OFFERED.fullmatch(name) is not None


def is_relative_key(place: str) -> bool:
    """Return whether a key's place is a path relative to the definitions.

    A URL or a path from the root or home is none, nor is a name that begins with a variable: it is an absolute path
    once the variable is replaced.
    """
    return _URL.match(place) is None and not place.startswith(("/", "~", "$"))


def release_variables(own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the release that follow from a platform's `own`.

    `releasever` is the one of this name, else `release`; `releasever_major` and `releasever_minor` are its parts, as in
    libdnf (ConfigParser::split_releasever).
    """
    release = own.get("releasever", own.get("release"))
    if release is None:
        return {}
    major, _, minor = release.partition(".")
    return {"releasever": release, "releasever_major": major, "releasever_minor": minor}


def variable_names(own: Iterable[str]) -> frozenset[str]:
    """Return the names that a repository may use where the platform defines `own`."""
    defined = dict.fromkeys(own, "")
    return frozenset({*defined, *release_variables(defined), "arch", "basearch"})


@dataclass(frozen=True, slots=True)
class SecretReference:
    """The place where a secret stands; never the secret itself.

    It is a file of the folder of secrets, with the secret on its only line, a variable of the environment, or an
    `option` of a `section` of a `.repo` file.
    """

    file: str = ""
    environment: str = ""
    section: str = ""
    option: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryAccess:
    """The means of reaching a repository's servers. Nothing that is resolved depends on them.

    Paths and `proxy` may hold `$variables`; `sslclientcert` may be a pattern, of which the newest valid certificate
    with a key counts. User and password are for HTTP's basic authentication, there and at the proxy. `token` is a
    bearer token; `netrc`: the login is that of the person's netrc file; `negotiate`: by the person's Kerberos ticket.
    """

    sslcacert: str = ""
    sslclientcert: str = ""
    sslclientkey: str = ""
    username: str | SecretReference = ""
    password: SecretReference | None = None
    token: SecretReference | None = None
    netrc: bool = False
    negotiate: bool = False
    proxy: str = ""
    proxy_username: str | SecretReference = ""
    proxy_password: SecretReference | None = None


PLAIN_ACCESS: Final = RepositoryAccess()


@dataclass(frozen=True, slots=True)
class PackageRepository:
    """One RPM repository.

    Exactly one of `baseurls`, `metalink`, `mirrorlist` is given; they and `keys` (paths or URLs of files of
    OpenPGP keys; relative ones are below `folder`, and do not lead out of it) may hold `$variables`. `priority`: lower
    wins, as in dnf (default 99); `cost`: among equal packages of equal priority the cheaper repository wins (default
    1000). `signed_metadata` demands a good `repomd.xml.asc`; package signatures are always demanded. Of `exclude` and,
    if there are any, `include` (patterns), only packages that the one does not and the other does match are seen.
    Modules hide nothing of a repository with `module_hotfixes`. `access` is how its servers are reached.
    `accept` names weaker signatures that will do. Of the keys in `keys` only those with `fingerprints` (of their
    primary keys, upper-case hex) count, if there are any.
    """

    id: str
    baseurls: tuple[str, ...] = ()
    metalink: str | None = None
    mirrorlist: str | None = None
    keys: tuple[str, ...] = ()
    priority: int = 99
    cost: int = 1000
    signed_metadata: bool = False
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    module_hotfixes: bool = False
    access: RepositoryAccess = field(default=PLAIN_ACCESS, repr=False)
    accept: tuple[AcceptedSignature, ...] = ()
    fingerprints: tuple[str, ...] = ()
    folder: Path | None = field(default=None, compare=False, repr=False)


def acceptance_warnings(repositories: Iterable[PackageRepository]) -> Iterator[str]:
    """Warn of repositories that accept weaker signatures."""
    for one in repositories:
        if one.accept:
            yield f"repository '{one.id}' accepts weaker signatures of packages: {', '.join(sorted(one.accept))}"


@dataclass(frozen=True, slots=True)
class Platform:
    """A named set of repositories with variables, and what is particular about the distribution.

    `rpm_database` is the directory in the image where the platform's own rpm reads its database, and the format.
    `architectures` are RPM base architectures (`x86_64`, `aarch64`). `variables` values may name environment variables
    that are offered (`is_offered`), as `${NAME:-default}`; they are expanded by `pipeline.repos`. `sources` are the
    repositories of source packages; nothing is resolved from them. `watched` are the `.repo` files and folders of
    variables that it was read from, wherever they are; `files` are those of them that are sent to workers: beside the
    definitions, and without secrets. `machine_variables` are the names of the `variables` that come from dnf's
    folders. `payload_limits` hold where a recipe states none. `families` are the platforms and families that it
    belongs to, itself first, the most general last. `add_ons` are those whose repositories were put on top.
    """

    name: str
    repositories: tuple[PackageRepository, ...]
    variables: tuple[tuple[str, str], ...] = ()
    rpm_database: RpmDatabase = RpmDatabase()
    architectures: tuple[str, ...] = ("x86_64",)
    description: str = field(default="", compare=False)
    sources: tuple[PackageRepository, ...] = ()
    files: tuple[Path, ...] = field(default=(), compare=False)
    watched: tuple[Path, ...] = field(default=(), compare=False)
    machine_variables: frozenset[str] = field(default=frozenset(), compare=False)
    payload_limits: PayloadLimits = PayloadLimits()
    families: tuple[str, ...] = field(default=(), compare=False)
    add_ons: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name with the add-ons, as `--platform` takes it: `rocky-9+mysql-8.4`."""
        return "+".join((self.name, *self.add_ons))


@dataclass(frozen=True, slots=True)
class AddOn:
    """Repositories that can be put on top of platforms.

    `repositories` are those for each platform or family that it is for; the most specific counts.
    """

    name: str
    repositories: Mapping[str, tuple[PackageRepository, ...]]


def most_specific(families: Sequence[str], known: Collection[str]) -> str | None:
    """Return the first of a platform's families that is `known`, None if none is."""
    return next((one for one in families if one in known), None)


def show_families(families: Sequence[str]) -> str:
    """Return a platform's families as text: `rocky-9 → el9 → el`."""
    return " → ".join(families)
