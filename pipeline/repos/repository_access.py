"""Make the network settings of one repository: certificates, credentials, proxy.

A definition says where a secret is; it is read here, when the repository is opened, and is in nothing that is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.beneath import GivenFolder
from pipeline.errors import EnvironmentLacking, RecipeError
from pipeline.ini_documents import read_ini
from pipeline.model.platform import PLAIN_ACCESS, SECRET_PREFIX, PackageRepository, SecretReference
from pipeline.repos.variables import at_home
from pipeline.transfer import Credentials, Network, ServerAccess, find_client_certificate
from pipeline.urls import is_http_url, parse_url

SECRET_LIMIT = 4096
"""Bytes of a file with a secret: a token of a cloud has some 2,000. A private key, which has several lines, is none."""


def repository_network(
    repository: PackageRepository, network: Network, environment: Mapping[str, str], *, now: float | None
) -> Network:
    """Return `network` as the servers of an expanded repository are to be reached.

    `now`: seconds since the epoch, against which certificates are held. Raises EnvironmentLacking `secret-unreadable`
    and as `find_client_certificate`, RecipeError `access-incomplete`.
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
    user, password = secret(access.username), secret(access.password)
    return replace(
        network,
        access=ServerAccess(
            ca_file=path(access.sslcacert) if access.sslcacert else None,
            certificate=certificate,
            credentials=tuple((one, Credentials(user, password)) for one in _origins(repository)) if user else (),
            proxy=_proxy(access.proxy, place),
            proxy_credentials=_proxy_credentials(secret(access.proxy_username), secret(access.proxy_password), place),
        ),
    )


def secrets_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder whose files are secrets: `$RELBUILD_SECRETS`, or the person's own.

    Only what was put there for that purpose can be sent to the host that a definition names.
    """
    home = environment.get("HOME") or "/root"
    config = environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return Path(environment.get("RELBUILD_SECRETS") or f"{config}/relbuild/secrets")


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


def is_own_origin(repository: PackageRepository, url: str) -> bool:
    """Return whether `url` is at an origin that the definition names as the repository's."""
    found = parse_url(url)
    return found is not None and found.origin in _origins(repository)


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
