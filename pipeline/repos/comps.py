"""Groups and environments of packages that repositories offer (comps.xml).

As libcomps reads them and dnf installs them: a group brings its mandatory, default and conditional packages, an
environment the groups of its `grouplist`. Groups of one id in several repositories are one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from fnmatch import translate
from xml.parsers import expat

from pipeline.digest import chunks
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import QUIET, Progress
from pipeline.repos.metadata import metadata_file
from pipeline.repos.repository import OpenRepository
from pipeline.repos.xml_tree import parse_pieces
from pipeline.store import Store

COMPS_ELEMENTS_MOST = 2_000_000
"""Elements of one document: Fedora's has some 40,000, most of them translations."""

COMPS_DEPTH_MOST = 8
_TEXT_LIMIT = 1000
_PLAIN = re.compile(r"[^()\s]+")
"""Name of a package that becomes a part of a rich dependency."""

_KINDS = ("group", "group_gz", "group_xz", "group_zst")
"""Names of the record in repomd.xml; createrepo_c lists the document as it is and compressed."""

PACKAGE_TYPES = ("mandatory", "default", "optional", "conditional")
INSTALLED_TYPES = ("mandatory", "default", "conditional")
"""dnf's `group_package_types`."""


@dataclass(frozen=True, slots=True)
class GroupPackage:
    """A package of a group.

    `kind` is one of PACKAGE_TYPES; `requires`: with `conditional`, the package that brings it; `native`: only of the
    base architecture.
    """

    name: str
    kind: str
    requires: str = ""
    native: bool = False


@dataclass(slots=True)
class _Listed:
    """A group (`packages`, by name) or an environment (`groups`), also while it is read."""

    id: str = ""
    name: str = ""
    packages: dict[str, list[GroupPackage]] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackageGroups:
    """The groups and environments of a platform's repositories, by id."""

    groups: Mapping[str, _Listed]
    environments: Mapping[str, _Listed]

    def find(self, text: str) -> tuple[GroupPackage, ...] | None:
        """Return the packages of `@ID`, `@NAME`, a pattern of these, or `@^ENVIRONMENT`, or None.

        `/` and a list of types after it take these in place of INSTALLED_TYPES. Sorted, each once.
        """
        wanted, _, types = text.removeprefix("@").partition("/")
        kinds = types.split(",") if types else INSTALLED_TYPES
        only_environments = wanted.startswith("^")
        wanted = wanted.removeprefix("^")
        environments = _matching(wanted, self.environments.values())
        groups = [] if only_environments else _matching(wanted, self.groups.values())
        groups += [self.groups[one] for found in environments for one in found.groups if one in self.groups]
        if not groups and not environments:
            return None
        found = {one for group in groups for same in group.packages.values() for one in same if one.kind in kinds}
        return tuple(sorted(found, key=lambda one: (one.name, one.kind, one.requires, one.native)))

    def names(self) -> tuple[str, ...]:
        """All ids, as they can be asked for."""
        return (*(f"@{one}" for one in sorted(self.groups)), *(f"@^{one}" for one in sorted(self.environments)))


def _matching(wanted: str, listed: Iterable[_Listed]) -> list[_Listed]:
    """Those that are called so, else those that the pattern matches in any case.

    As dnf's comps._by_pattern.
    """
    every = list(listed)
    exact = [one for one in every if wanted in (one.id, one.name)]
    pattern = re.compile(translate(wanted), re.IGNORECASE)
    return exact or [one for one in every if pattern.match(one.id) or pattern.match(one.name)]


def read_groups(repositories: Sequence[OpenRepository], *, store: Store, progress: Progress = QUIET) -> PackageGroups:
    """Read the groups of all repositories.

    Raises VerificationError `comps-malformed` and as `metadata_file`.
    """
    groups: dict[str, _Listed] = {}
    environments: dict[str, _Listed] = {}
    for opened in repositories:
        kind = next((one for one in _KINDS if one in opened.records), None)
        found = metadata_file(opened, kind, store=store, progress=progress) if kind else None
        if found is None:
            continue
        reader = CompsReader(f"comps.xml of {opened.repository.id}")
        with found[0].open("rb") as file:
            reader.read(chunks(file))
        for target, listed in ((groups, reader.groups), (environments, reader.environments)):
            for one in listed:
                known = target.setdefault(one.id, _Listed(one.id))
                # The later repository's name and entries of a package replace the earlier's, as libcomps merges groups.
                known.name = one.name or known.name
                known.packages |= one.packages
                known.groups |= one.groups
    return PackageGroups(groups, environments)


class CompsReader:
    """The state of the parser: where it is, and what was read."""

    def __init__(self, name: str) -> None:
        self.groups: list[_Listed] = []
        self.environments: list[_Listed] = []
        self._name = name
        self._path: list[str] = []
        self._count = 0
        self._text = ""
        self._attributes: dict[str, str] = {}
        self._now = _Listed()

    def read(self, pieces: Iterable[bytes]) -> None:
        """Read a document. Raises VerificationError `comps-malformed`."""
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._take
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = lambda *_: self._refuse("it declares an entity")
        parse_pieces(parser, pieces, lambda why: self._malformed(f"it is not well-formed XML: {why}"))

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > COMPS_ELEMENTS_MOST or len(self._path) >= COMPS_DEPTH_MOST:
            raise self._malformed("it has too many or too deep elements")
        self._path.append(tag)
        self._text, self._attributes = "", attributes
        if self._path in (["comps", "group"], ["comps", "environment"]):
            self._now = _Listed()

    def _end(self, tag: str) -> None:
        text, path = self._text.strip(), self._path[1:]
        plain = not any("lang" in name for name in self._attributes)  # names in other languages are left out
        match path:
            case ["group" | "environment", "id"]:
                self._now.id = text
            case ["group" | "environment", "name"] if plain:
                self._now.name = text
            case ["group", "packagelist", "packagereq"] if text:
                self._now.packages.setdefault(text, []).append(self._package(text))
            case ["environment", "grouplist", "groupid"] if text:
                self._now.groups[text] = None
            case ["group"] if self._now.id:
                self.groups.append(self._now)
            case ["environment"] if self._now.id:
                self.environments.append(self._now)
        self._path.pop()
        self._text = ""

    def _package(self, name: str) -> GroupPackage:
        given = self._attributes.get("type", "mandatory")
        kind = given if given in PACKAGE_TYPES else "mandatory"
        requires = self._attributes.get("requires", "").strip() if kind == "conditional" else ""
        if requires and (len(requires) > _TEXT_LIMIT or not _PLAIN.fullmatch(f"{name}{requires}")):
            raise self._malformed(f"'{name[:80]}' requires '{requires[:80]}', which is no package's name")
        return GroupPackage(name, kind, requires, self._attributes.get("basearchonly") == "true")

    def _take(self, data: str) -> None:
        if len(self._text) < _TEXT_LIMIT:  # a description may be longer, and is not kept
            self._text += data[:_TEXT_LIMIT]

    def _doctype(self, _name: str, _system: str | None, _public: str | None, has_subset: int) -> None:
        if has_subset:  # `<!DOCTYPE comps PUBLIC …>` alone stands in all of them, and nothing is fetched for it
            self._refuse("it declares a document type of its own")

    def _refuse(self, why: str) -> None:
        raise self._malformed(why)

    def _malformed(self, why: str) -> VerificationError:
        return VerificationError("comps-malformed", f"{self._name} cannot be read: {why}", place=self._name)
