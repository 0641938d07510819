"""Expand variables in repository and platform definitions, and in mirror lists.

These are `$releasever` and the like, and `${NAME:-default}` of the environment.

The two never mix. A platform's variables may name environment variables; a repository's URLs and keys may
name the platform's variables. So a recipe cannot read the environment, and the lock's digest is taken over
the text before any of it is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import RecipeError
from pipeline.model.platform import (
    OFFERED_PREFIX,
    PackageRepository,
    Platform,
    is_offered,
    is_relative_key,
    release_variables,
)

_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_IN_ANSWER = re.compile(r"\$(?:\{((?:[A-Za-z0-9]|_(?=[A-Za-z0-9]))+)\}|((?:[A-Za-z0-9]|_(?=[A-Za-z0-9]))+))")
_PUBLIC = re.compile(r"releasever(?:_major|_minor)?|basearch|arch")
_HOME = re.compile(r"^(file://)?~(?=/|$)")


def environment_names(platform: Platform) -> frozenset[str]:
    """Return the environment variables that a platform's definition names."""
    return frozenset(name for _, text in platform.variables for name, _ in _ENVIRONMENT.findall(text))


def environment_behind(text: str, platform: Platform) -> tuple[str, ...]:
    """Return the environment variables on which a repository's path depends, sorted.

    `text` is the path before its variables are replaced.
    """
    own = {name: frozenset(found for found, _ in _ENVIRONMENT.findall(value)) for name, value in platform.variables}
    release = own.get("releasever", own.get("release", frozenset()))
    behind = dict.fromkeys(release_variables(dict.fromkeys(own, "")), release) | own
    named = (braced or bare for braced, bare in _VARIABLE.findall(text))
    return tuple(sorted(frozenset().union(*(behind.get(name, frozenset()) for name in named))))


def expand_environment(text: str, environment: Mapping[str, str], *, place: str) -> str:
    """`${NAME:-default}` and a leading `~` (also after `file://`) replaced. Raises RecipeError
    `variable-unset` for a name that is not set and has no default, `variable-not-offered` for one that no platform
    may name."""

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        if not is_offered(name):
            raise RecipeError(
                "variable-not-offered",
                f"platforms cannot use the environment variable {name}",
                place=place,
                hint=f"rename it to {OFFERED_PREFIX}{name}, here and where it is set",
            )
        given = environment.get(name) or default
        if given is None:
            raise RecipeError(
                "variable-unset",
                f"the environment variable {name} is not set",
                place=place,
                hint=f"set it, or write a default: ${{{name}:-value}}",
            )
        return at_home(given, environment, place)

    return at_home(_ENVIRONMENT.sub(value, text), environment, place)


def at_home(text: str, environment: Mapping[str, str], place: str) -> str:
    """Replace a leading `~` (also after `file://`). Raises RecipeError `variable-unset`."""
    if not _HOME.match(text):
        return text
    home = environment.get("HOME")
    if not home:
        raise RecipeError("variable-unset", "'~' is used, but HOME is not set", place=place)
    return _HOME.sub(lambda found: (found.group(1) or "") + home, text)


def platform_variables(platform: Platform, arch: str, environment: Mapping[str, str]) -> dict[str, str]:
    """All variables that the repositories may name: `arch`, `basearch`, `releasever`, the own.

    `releasever` is the platform's variable of this name, else its `release`; `releasever_major` and `releasever_minor`
    are its parts, as in libdnf (ConfigParser::split_releasever).
    """
    place = f"platform {platform.name}"
    own = {name: expand_environment(text, environment, place=place) for name, text in platform.variables}
    return {"arch": arch, "basearch": arch, **release_variables(own), **own}


def answer_variables(platform: Platform, arch: str) -> dict[str, str]:
    """Return the variables that are replaced in the answers of mirrorlists and metalinks.

    Those whose value comes from the environment, the home folder or dnf's folders are left out: whoever writes such an
    answer says to which host the value goes. Of dnf's, releases and architectures are no secret.
    """
    own = {name: text for name, text in platform.variables if "$" not in text and not _HOME.match(text)}
    shown = {
        name: text for name, text in own.items() if name not in platform.machine_variables or _PUBLIC.fullmatch(name)
    }
    return {"arch": arch, "basearch": arch, **release_variables(own), **shown}


def expand(text: str, variables: Mapping[str, str], *, place: str) -> str:
    """Replace `$name` and `${name}`. Raises RecipeError `variable-unknown`."""

    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name not in variables:
            raise RecipeError(
                "variable-unknown",
                f"undefined variable '${name}' in '{text}'",
                place=place,
                hint=f"define it under 'variables'; defined: {', '.join(sorted(variables))}",
            )
        return variables[name]

    return _VARIABLE.sub(value, text)


def expand_answer(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$name` and `${name}` where the name is known, as `lr_url_substitute` does."""
    return _IN_ANSWER.sub(lambda found: variables.get(found.group(1) or found.group(2), found.group()), text)


def expand_repository(
    repository: PackageRepository, variables: Mapping[str, str], environment: Mapping[str, str]
) -> PackageRepository:
    """Return the repository with every variable in its URLs, keys and means of access replaced."""
    place, access = f"repository {repository.id}", repository.access

    def full(text: str) -> str:
        return at_home(expand(text, variables, place=place), environment, place)

    def beside(path: str) -> str:
        return str(repository.folder / path) if repository.folder else path

    return replace(
        repository,
        baseurls=tuple(full(url) for url in repository.baseurls),
        metalink=full(repository.metalink) if repository.metalink else None,
        mirrorlist=full(repository.mirrorlist) if repository.mirrorlist else None,
        keys=tuple(beside(full(key)) if is_relative_key(key) else full(key) for key in repository.keys),
        access=replace(
            access,
            sslcacert=full(access.sslcacert),
            sslclientcert=full(access.sslclientcert),
            sslclientkey=full(access.sslclientkey),
            proxy=full(access.proxy),
        ),
    )
