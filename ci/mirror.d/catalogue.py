"""``catalogue.toml`` as types: what to take from Debian and how each package differs.

A Debian package without an entry becomes an RPM of the same name (without Debian's ``t64``).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Update:
    """A second build of a package for the ``updates`` repository, and its advisory."""

    advisory: str
    kind: str
    severity: str
    title: str
    description: str
    cves: tuple[str, ...] = ()
    path: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How one RPM is made from one or more Debian packages; the first gives its version."""

    name: str
    debs: tuple[str, ...]
    license: str | None = None
    payload: str | None = None
    drop: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    caps: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, str] = field(default_factory=dict)
    ghosts: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    requires_pre: tuple[str, ...] = ()
    requires_post: tuple[str, ...] = ()
    without_requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    suggests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The requests, what is left out, the conversions that differ and the updates.

    ``others`` is what other architectures than x86_64 have instead of ``stable``.
    """

    stable: tuple[str, ...]
    mysql: tuple[str, ...]
    others: tuple[str, ...]
    rivals: frozenset[str]
    without: frozenset[str]
    conversions: Mapping[str, Conversion]
    updates: Mapping[str, Update]

    def conversions_for(self, debs: Iterable[str]) -> dict[str, Conversion]:
        """Return the conversion of every RPM that the chosen ``debs`` give, by RPM name."""
        chosen = set(debs)
        owner = {deb: c.name for c in self.conversions.values() for deb in c.debs}
        result = {}
        for deb in sorted(chosen):
            name = owner.get(deb, deb.replace("t64", ""))
            given = self.conversions.get(name)
            if given is None or deb not in given.debs:
                result[name] = Conversion(name=name, debs=(deb,))
            elif set(given.debs) <= chosen:
                result[name] = given
        return result

    def names_for(self, debs: Iterable[str]) -> dict[str, str]:
        """Return the name of the RPM that each of the chosen ``debs`` goes into."""
        return {deb: c.name for c in self.conversions_for(debs).values() for deb in c.debs}


def load(file: Path) -> Catalogue:
    """Read ``catalogue.toml``. Unknown keys of a package or an update raise ``TypeError``."""
    data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    return Catalogue(
        stable=tuple(data["requests"]["stable"]),
        mysql=tuple(data["requests"]["mysql"]),
        others=tuple(data["requests"]["other-architectures"]),
        rivals=frozenset(data["requests"]["rivals"]),
        without=frozenset(data["requests"]["without"]),
        conversions={name: Conversion(name=name, **_hashable(entry)) for name, entry in data["package"].items()},
        updates={name: Update(**_hashable(entry)) for name, entry in data["update"].items()},
    )


def _hashable(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
