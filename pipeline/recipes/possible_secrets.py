"""Tell whether recipes and platforms may hold a secret in plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from pipeline.model.platform import Platform, RepositoryAccess, SecretReference, release_variables
from pipeline.urls import redact_urls

_ENVIRONMENT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:-([^}]*)\}")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_PRIVATE_KEY = re.compile(r"PRIVATE KEY(?: BLOCK)?-----")
"""In the first line of every PEM form of a private key, and of OpenPGP's."""


def may_hold_secret(value: object) -> bool:
    """Return whether a text in a noun is a private key, or has a URL with a login or token."""
    return any(_is_secret(text) for text in _texts(value))


def platform_may_hold_secret(platform: Platform) -> bool:
    """Return whether a platform may hold a secret, also where variables make it one.

    A user's name counts; so does whatever else is not the place of a secret, but the secret, or might be.
    """
    variables = {name: _ENVIRONMENT.sub(r"\1", text) for name, text in platform.variables}
    known = {**release_variables(variables), **variables}

    def expanded(text: str) -> str:
        return _VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), text)

    return may_hold_secret(platform) or any(
        _has_login(one.access) or any(_is_secret(expanded(text)) for text in _texts(one))
        for one in (*platform.repositories, *platform.sources)
    )


def _has_login(access: RepositoryAccess) -> bool:
    """Return whether access has more than places of secrets, paths, switches, a proxy."""
    for one in fields(access):
        value = getattr(access, one.name)
        if isinstance(value, str) and value:
            # A colon is in no path that people use, but in the PKCS #11 URI of a key, with its PIN.
            if one.name != "proxy" and (":" in value or not one.name.startswith("ssl")):
                return True
        elif not isinstance(value, str | bool | SecretReference | None):
            return True
    return False


def _is_secret(text: str) -> bool:
    return redact_urls(text) != text or _PRIVATE_KEY.search(text) is not None


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a value made of nouns, tuples and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, tuple | list | frozenset):
        for item in value:
            yield from _texts(item)
    elif is_dataclass(value):
        for one in fields(value):
            yield from _texts(getattr(value, one.name))
