"""Parse WWW-Authenticate challenges; parse, merge and write the scopes of registry tokens.

RFC 9110, 11.6.1; the distribution project's "Token Scope Documentation".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.lazy_dataclasses import dataclass

CHALLENGE_LIMIT = 16 << 10
"""Characters of a header that are parsed; a challenge has some hundred."""

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - RFC 9110's word for a word
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|\s*(?=,|$))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: an authentication scheme and its parameters.

    `scheme` is in lower case; `parameters` are sorted, their names in lower case.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def parameter(self, name: str) -> str:
        """Return a parameter's value; "" if it is missing."""
        return dict(self.parameters).get(name, "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse all challenges in a response's WWW-Authenticate headers; malformed ones are skipped."""
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
        """Return the scope of a repository; actions are `pull`, `push`, `delete`."""
        return cls("repository", name, tuple(sorted(actions)))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


CATALOG_SCOPE = Scope("registry", "catalog", ("*",))
"""The scope for listing all repositories."""


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse a challenge's `scope` parameter, separated by blanks; a name may contain colons."""
    found = []
    for word in text.split():
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind and name and actions:
            found.append(Scope(kind, name, tuple(sorted(set(actions.split(","))))))
    return tuple(found)


def merge_scopes(*scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """Return all scopes, with the actions on each resource merged, sorted."""
    actions: dict[tuple[str, str], set[str]] = {}
    for scope in (one for some in scopes for one in some):
        actions.setdefault((scope.kind, scope.name), set()).update(scope.actions)
    return tuple(sorted(Scope(kind, name, tuple(sorted(some))) for (kind, name), some in actions.items()))
