"""Which Debian packages are needed, and from which suite: a small fixpoint.

Every package is taken from the first suite (stable) until a dependency or a ``Breaks`` of a chosen
package rules that version out; then it moves to the next suite, and everything is looked at again.
apt's own resolver refuses to move a dependency between suites by itself, and it would drag in what
an image does not want (perl, systemd, debconf), which the ``without`` set cuts off here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from debian_version import newest_last, satisfies

_RELATION = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9+.-]*)(?::[a-z0-9]+)?"
    r"(?:\s*\(\s*(?P<operator><<|<=|=|>=|>>)\s*(?P<version>[^)\s]+)\s*\))?"
)


class Unresolvable(Exception):
    """No choice of suites satisfies the requests; the message names the first that fails."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One alternative of a dependency: a name and perhaps a version bound."""

    name: str
    operator: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name

    def admits(self, version: str) -> bool:
        """Whether ``version`` of the package of this name will do."""
        if self.operator is None or self.version is None:
            return True
        return satisfies(version, self.operator, self.version)


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One stanza of a Packages index, as far as it is of use here."""

    name: str
    version: str
    suite: str
    source: str
    section: str
    path: str
    sha256: str
    depends: tuple[tuple[Relation, ...], ...] = field(repr=False)
    breaks: tuple[Relation, ...] = field(repr=False)
    provides: tuple[Relation, ...] = field(repr=False)


def parse_relations(text: str) -> tuple[tuple[Relation, ...], ...]:
    """Parse a dependency field: a conjunction of alternatives (Debian Policy 7.1)."""
    clauses = []
    for clause in filter(None, (part.strip() for part in text.split(","))):
        alternatives = []
        for alternative in clause.split("|"):
            found = _RELATION.match(alternative.strip())
            if found:
                alternatives.append(Relation(found["name"], found["operator"], found["version"]))
        clauses.append(tuple(alternatives))
    return tuple(clauses)


def _parse_stanza(stanza: str, suite: str) -> DebianPackage:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        if line[:1] not in " \t":
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
    return DebianPackage(
        name=fields["Package"],
        version=fields["Version"],
        suite=suite,
        source=fields.get("Source", fields["Package"]).split(" ")[0],
        section=fields.get("Section", ""),
        path=fields["Filename"],
        sha256=fields["SHA256"],
        depends=parse_relations(depends),
        breaks=tuple(r for c in parse_relations(fields.get("Breaks", "")) for r in c),
        provides=tuple(r for c in parse_relations(fields.get("Provides", "")) for r in c),
    )


class Suites:
    """The packages on offer, by name, best suite first and newest first within a suite."""

    def __init__(self, order: tuple[str, ...]) -> None:
        self._order = order
        self._stanzas: dict[str, list[tuple[str, str]]] = {}
        self._parsed: dict[str, list[DebianPackage]] = {}

    def add_index(self, suite: str, text: str) -> None:
        """Take in a Packages index; a stanza is parsed when somebody asks for its package."""
        for stanza in text.split("\n\n"):
            if stanza.startswith("Package: "):
                name = stanza[len("Package: ") : stanza.index("\n")]
                self._stanzas.setdefault(name, []).append((suite, stanza))

    def offered(self, name: str) -> list[DebianPackage]:
        """Return the versions of ``name``, most preferred first."""
        if name not in self._parsed:
            offered = [_parse_stanza(stanza, suite) for suite, stanza in self._stanzas.get(name, [])]
            offered.sort(key=lambda p: newest_last(p.version), reverse=True)
            offered.sort(key=lambda p: self._order.index(p.suite))
            self._parsed[name] = offered
        return self._parsed[name]


def close(
    suites: Suites, requests: Iterable[str], without: frozenset[str], rivals: frozenset[str]
) -> dict[str, DebianPackage]:
    """Return the chosen package per name: the requests and all that they depend on.

    ``rivals`` are never installed together: they may break one another and be chosen all the same.
    Raises ``Unresolvable`` when a request or a dependency cannot be met from any suite.
    """
    wanted = list(requests)
    floor: dict[str, int] = {}  # how many of the preferred versions are ruled out, by name
    while True:
        chosen = _walk(suites, wanted, without, floor)
        if not _raise_one_floor(suites, chosen, rivals, floor):
            return chosen


def _walk(
    suites: Suites, wanted: list[str], without: frozenset[str], floor: dict[str, int]
) -> dict[str, DebianPackage]:
    chosen: dict[str, DebianPackage] = {}
    queue = [(name, "requested") for name in wanted]
    while queue:
        name, because = queue.pop(0)
        if name in chosen:
            continue
        offered = suites.offered(name)[floor.get(name, 0) :]
        if not offered:
            raise Unresolvable(f"{name} ({because}) has no usable version in the suites")
        chosen[name] = package = offered[0]
        for clause in package.depends:
            target = _pick(suites, clause, chosen, without)
            if target is not None:
                queue.append((target, f"needed by {name} {package.version}"))
    return chosen


def _pick(
    suites: Suites,
    clause: tuple[Relation, ...],
    chosen: Mapping[str, DebianPackage],
    without: frozenset[str],
) -> str | None:
    """Return the name that shall satisfy ``clause``; None when it is left out on purpose."""
    if any(alternative.name in without for alternative in clause):
        return None
    for alternative in clause:
        if alternative.name in chosen:
            return alternative.name
    for alternative in clause:
        if suites.offered(alternative.name):
            return alternative.name
    # A virtual package: none of those in use here matters (all are about alternatives or
    # debconf), unless somebody already provides it.
    return None


def _raise_one_floor(
    suites: Suites, chosen: Mapping[str, DebianPackage], rivals: frozenset[str], floor: dict[str, int]
) -> bool:
    """Rule out one version that a chosen package does not accept; say whether there was any."""
    for package in chosen.values():
        for clause in package.depends:
            present = [r for r in clause if r.name in chosen]
            if not present or any(r.admits(chosen[r.name].version) for r in present):
                continue
            if not _provided(chosen, present):
                _rule_out(suites, chosen, present[0], package, floor)
                return True
        for relation in package.breaks:
            broken = chosen.get(relation.name)
            if broken is None or broken is package or {package.name, broken.name} <= rivals:
                continue
            if relation.admits(broken.version):
                _advance(suites, broken, package, f"breaks {relation}", floor)
                return True
    return False


def _provided(chosen: Mapping[str, DebianPackage], relations: Iterable[Relation]) -> bool:
    return any(
        provided.name == relation.name
        and (relation.operator is None or (provided.version and relation.admits(provided.version)))
        for relation in relations
        for package in chosen.values()
        for provided in package.provides
    )


def _rule_out(
    suites: Suites,
    chosen: Mapping[str, DebianPackage],
    relation: Relation,
    package: DebianPackage,
    floor: dict[str, int],
) -> None:
    """Move the target of ``relation``, or, if no version of it will do, the package itself."""
    start = floor.get(relation.name, 0)
    later = suites.offered(relation.name)[start:]
    if any(relation.admits(candidate.version) for candidate in later):
        _advance(suites, chosen[relation.name], package, f"needs {relation}", floor)
    else:
        _advance(suites, package, chosen[relation.name], f"is refused: needs {relation}", floor)


def _advance(suites: Suites, package: DebianPackage, other: DebianPackage, why: str, floor: dict[str, int]) -> None:
    floor[package.name] = floor.get(package.name, 0) + 1
    if floor[package.name] >= len(suites.offered(package.name)):
        raise Unresolvable(f"{other.name} {other.version} {why}, and no other version of {package.name} is left")
