"""Make the network settings of one repository: certificates, credentials, proxy.

A definition says where a secret is; it is read here, when the repository is opened, and is in nothing that is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import GivenFolder
from pipeline.errors import EnvironmentLacking, RecipeError
from pipeline.ini_documents import read_ini
from pipeline.model.platform import PLAIN_ACCESS, SECRET_PREFIX, PackageRepository, RepositoryAccess, SecretReference
from pipeline.repos.variables import at_home
from pipeline.transfer import (
    Credentials,
    Network,
    Origin,
    ServerAccess,
    find_client_certificate,
    netrc_path,
    netrc_unreadable,
    read_netrc,
)
from pipeline.urls import is_http_url, parse_url
from pipeline.user_home import require_home

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
SECRET_LIMIT = 4096
"""Bytes of a file with a secret: a token of a cloud has some 2,000. A private key, which has several lines, is none."""


def repository_network(
    repository: PackageRepository, network: Network, environment: Mapping[str, str], *, now: float | None
) -> Network:
    """Return `network` as the servers of an expanded repository are to be reached.

    `now`: seconds since the epoch, against which certificates are held. Raises EnvironmentLacking `secret-unreadable`
    and as `find_client_certificate`, RecipeError `access-incomplete`, `access-conflict`.
    """
    access = repository.access
    if access == PLAIN_ACCESS:
        return network
    place = f"repository {repository.id}"

    def path(text: str) -> Path:
        found = Path(at_home(text, environment, place))
        if not found.is_absolute():
            hint = "write an absolute path, or ~/…"
            raise RecipeError("access-incomplete", f"'{text}' is not an absolute path", place=place, hint=hint)
        return found

    def secret(value: str | SecretReference | None) -> str:
        return read_secret(value, environment, place) if isinstance(value, SecretReference) else value or ""

    certificate = None
    if access.sslclientcert:
        key = str(path(access.sslclientkey)) if access.sslclientkey else ""
        certificate = find_client_certificate(str(path(access.sslclientcert)), key, now=now)
    elif access.sslclientkey:
        message = "'sslclientkey' is given without 'sslclientcert'"
        raise RecipeError("access-incomplete", message, place=place, hint="name the certificate too")
    if access.proxy_username and not access.proxy:
        message = "'proxy_username' is given without 'proxy'"
        raise RecipeError("access-incomplete", message, place=place, hint="name the proxy, or leave its user out")
    check_logins(repository)
    return replace(
        network,
        access=ServerAccess(
            ca_file=path(access.sslcacert) if access.sslcacert else None,
            certificate=certificate,
            authorization=tuple(_authorization(repository, secret, environment)),
            negotiate=_origins(repository) if access.negotiate else (),
            proxy=_proxy(access.proxy, place),
            proxy_credentials=_proxy_credentials(secret(access.proxy_username), secret(access.proxy_password), place),
        ),
    )


def check_logins(repository: PackageRepository) -> None:
    """Refuse two ways of logging in, and ways on which a login of the person's would go astray.

    A definition names its own proxy and authorities. It could so lead what is in `~/.netrc` to whomever it likes, or
    pass a Kerberos token on; a password for relbuild was put where definitions may name it. Raises RecipeError
    `access-conflict`.
    """
    access, place = repository.access, f"repository {repository.id}"
    ways = {"username": access.username, "token": access.token, "netrc": access.netrc, "negotiate": access.negotiate}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        message = f"'{given[0]}' and '{given[1]}' are two ways of logging in"
        raise RecipeError("access-conflict", message, place=place, hint="leave one of them out")
    if not (access.netrc or access.negotiate):
        return
    for name in ("proxy", "sslcacert"):
        if getattr(access, name):
            message = f"'{given[0]}' cannot be used with a '{name}' of the definition's own"
            hint = "set https_proxy or SSL_CERT_FILE in the environment instead, or use 'username' and 'password'"
            raise RecipeError("access-conflict", message, place=place, hint=hint)
    if any(scheme != "https" for scheme, _, _ in _origins(repository)):
        message = f"'{given[0]}' is for https alone: anybody on the way could read what is sent"
        raise RecipeError("access-conflict", message, place=place, hint="write https:// URLs, or leave it out")


def _authorization(
    repository: PackageRepository,
    secret: Callable[[str | SecretReference | None], str],
    environment: Mapping[str, str],
) -> Iterator[tuple[Origin, str]]:
    """Yield the value of the Authorization header by origin."""
    access, place, origins = repository.access, f"repository {repository.id}", _origins(repository)
    if access.netrc and origins:
        path = netrc_path(environment)
        logins = read_netrc(path, place)
        known = [origin for origin in origins if origin[1] in logins]
        if not known:
            raise netrc_unreadable(path, f"it has no entry for {origins[0][1]}", place)
        yield from ((origin, logins[origin[1]].basic) for origin in known)
    elif access.token:
        token = secret(access.token)
        if not _TOKEN.fullmatch(token):
            where = access.token.file or access.token.environment
            raise _unreadable("a bearer token has letters, digits and -._~+/= alone (RFC 6750)", where, place)
        yield from ((origin, f"Bearer {token}") for origin in origins)
    elif access.username:
        value = Credentials(secret(access.username), secret(access.password)).basic
        yield from ((origin, value) for origin in origins)


def secrets_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder whose files are secrets: `$RELBUILD_SECRETS`, or the person's own.

    Only what was put there for that purpose can be sent to the host that a definition names. Raises EnvironmentLacking
    `home-unknown`.
    """
    if given := environment.get("RELBUILD_SECRETS"):
        return Path(given)
    config = environment.get("XDG_CONFIG_HOME") or require_home(environment) / ".config"
    return Path(config, "relbuild", "secrets")


def read_secret(reference: SecretReference, environment: Mapping[str, str], place: str) -> str:
    """Read a secret from where it stands. Raises EnvironmentLacking `secret-unreadable`."""
    if reference.environment:
        name = reference.environment
        value = environment.get(name, "") if name.startswith(SECRET_PREFIX) else ""
        if not value:
            raise _unreadable(f"the environment variable {name} is not set", name, place)
        return value
    try:
        if reference.option:
            return read_ini(Path(reference.file))[reference.section][reference.option].text
        folder = secrets_folder(environment)
        text = GivenFolder(folder).read(folder / reference.file, SECRET_LIMIT).decode()
        text = text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _unreadable("it is not text", reference.file, place) from None
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(str(error), reference.file, place) from error
    if not text or not text.isprintable():
        raise _unreadable("a secret is one line of text", reference.file, place)
    return text


def key_network(repository: PackageRepository, url: str, network: Network, environment: Mapping[str, str]) -> Network:
    """Return `network` as a key at `url` of an expanded repository is to be fetched.

    An origin that the definition names as the repository's may demand the same login. Any other is reached through the
    same proxy, and is otherwise a server like any. Raises as `repository_network`.
    """
    found = parse_url(url)
    if found is not None and found.origin in _origins(repository):
        return repository_network(repository, network, environment, now=None)
    access = repository.access
    proxied = RepositoryAccess(
        proxy=access.proxy, proxy_username=access.proxy_username, proxy_password=access.proxy_password
    )
    return repository_network(replace(repository, access=proxied), network, environment, now=None)


def _origins(repository: PackageRepository) -> tuple[tuple[str, str, int], ...]:
    """Return the origins that the definition names; mirrors of an answer get no credentials."""
    urls = (*repository.baseurls, repository.metalink or "", repository.mirrorlist or "")
    found = (parse_url(url) for url in urls)
    return tuple(dict.fromkeys(url.origin for url in found if url is not None and url.host))


def _proxy(text: str, place: str) -> str | None:
    if not text:
        return None
    url = text if "://" in text else f"http://{text}"
    if not is_http_url(url):
        hint = "write http://HOST:PORT or https://HOST:PORT"
        raise RecipeError("access-incomplete", "'proxy' is not the URL of an HTTP proxy", place=place, hint=hint)
    return url


def _proxy_credentials(user: str, password: str, place: str) -> Credentials | None:
    if user and not password:  # as libdnf's Repo.cpp
        message = "'proxy_username' is given without 'proxy_password'"
        raise RecipeError("access-incomplete", message, place=place, hint="give both, or none")
    return Credentials(user, password) if user else None


def _unreadable(why: str, what: str, place: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "secret-unreadable",
        f"the secret at '{what}' cannot be read: {why}",
        place=place,
        hint="put it into a file of ~/.config/relbuild/secrets (or of $RELBUILD_SECRETS), also on workers of a cluster",
    )
