"""Authentication challenges (WWW-Authenticate) and scopes of tokens.

The header is that of RFC 9110, 11.6.1; scopes are those of the token authentication of the distribution project ("Token
Scope Documentation").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CHALLENGE_LIMIT = 16 << 10
"""Bytes of challenges that are read; a challenge has some hundred."""

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110's word for a word
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|\s*(?=,|$))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: an authentication scheme and its parameters.

    `scheme` is in small letters; `parameters` are sorted, their names in small letters.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str:
        """A parameter's value, or an empty text."""
        return dict(self.parameters).get(name, "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse all challenges of an answer's WWW-Authenticate headers.

    What cannot be understood is left out.
    """
    found: list[Challenge] = []
    for header in headers:
        text, position = header[:CHALLENGE_LIMIT], 0
        while scheme := _SCHEME.match(text, position):
            position, parameters = scheme.end(), {}
            while one := _PARAMETER.match(text, position):
                quoted, plain = one[2], one[3]
                value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters[one[1].lower()] = value
                position = one.end()
                if not _PARAMETER.match(text, position + 1) or text[position : position + 1] != ",":
                    break
                position += 1
            found.append(Challenge(scheme[1].lower(), tuple(sorted(parameters.items()))))
            if text[position : position + 1] != ",":
                break
            position += 1
    return tuple(found)


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """A resource and the actions on it.

    Written as `repository:NAME:pull,push` or `registry:catalog:*`.
    """

    kind: str
    name: str
    actions: tuple[str, ...]

    @classmethod
    def repository(cls, name: str, *actions: str) -> Scope:
        """A repository: `pull`, `push`, `delete`."""
        return cls("repository", name, tuple(sorted(actions)))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


CATALOG_SCOPE = Scope("registry", "catalog", ("*",))
"""To list all repositories."""


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """A challenge's `scope`: scopes with blanks between; a name may hold colons."""
    found = []
    for word in text.split():
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind and name and actions:
            found.append(Scope(kind, name, tuple(sorted(set(actions.split(","))))))
    return tuple(found)


def merge_scopes(*scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """All of them, each resource once, sorted."""
    actions: dict[tuple[str, str], set[str]] = {}
    for scope in (one for some in scopes for one in some):
        actions.setdefault((scope.kind, scope.name), set()).update(scope.actions)
    return tuple(sorted(Scope(kind, name, tuple(sorted(some))) for (kind, name), some in actions.items()))
