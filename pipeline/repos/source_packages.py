"""Find a repository's source packages by file name, in its primary metadata.

Nothing is resolved, so libsolv is not needed: primary metadata is parsed once, element by element, and only requested
packages are kept. A distribution's largest has some hundred MiB.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import field
from xml.parsers import expat

from pipeline.digest import Digest, chunks
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import NO_SOURCE_ARCH, SOURCE_ARCH, Nevra, Package
from pipeline.progress import QUIET, Progress
from pipeline.repos.metadata import metadata_file
from pipeline.repos.repository import OpenRepository
from pipeline.repos.xml_tree import parse_pieces
from pipeline.store import Store

_KEPT = frozenset({"name", "arch", "version", "checksum", "size", "time", "location"})
_TEXT_LIMIT = 4096
"""Characters of a name or a checksum."""

_NUMBER = re.compile(r"[0-9]{1,18}")


def find_source_packages(
    opened: OpenRepository, names: Collection[str], *, store: Store, progress: Progress = QUIET
) -> dict[str, Package]:
    """Find the source packages of `opened` by file name (`NAME-VERSION-RELEASE.src.rpm`).

    Returns file name → source package, for those of `names` that `opened` has; of several with one name the one with
    the lowest checksum. Raises VerificationError `metadata-malformed`, `checksum-weak`, and as `metadata_file`.
    """
    found = metadata_file(opened, "primary", store=store, progress=progress)
    if found is None:
        return {}
    reading = _Reading(opened.repository.id, frozenset(names))
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reading.begin
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.refuse
    with found[0].open("rb") as file:
        parse_pieces(parser, chunks(file), lambda why: reading.malformed(f"it is not well-formed XML: {why}"))
    return reading.found


@dataclass(slots=True)
class _Reading:
    """The state of the parser: what was read so far, and the package that is being read."""

    repository: str
    names: frozenset[str]
    found: dict[str, Package] = field(default_factory=dict)
    depth: int = 0
    element: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element; those directly in a package are kept."""
        self.depth += 1
        name = tag.rpartition(" ")[2]
        if self.depth == 2:
            self.texts, self.attributes = {}, {}
        elif self.depth == 3 and name in _KEPT:
            self.element = name
            self.attributes[name] = attributes

    def text(self, data: str) -> None:
        """Handle text of an element that is kept."""
        if self.element:
            known = self.texts.get(self.element, "") + data
            if len(known) > _TEXT_LIMIT:
                raise self.malformed(f"'{self.element}' has more than {_TEXT_LIMIT} characters")
            self.texts[self.element] = known

    def end(self, _tag: str) -> None:
        """Handle the end of an element; at the end of a package, keep it if requested."""
        self.depth -= 1
        self.element = ""
        if self.depth == 1 and self.texts.get("arch") in (SOURCE_ARCH, NO_SOURCE_ARCH):
            self._keep()

    def refuse(self, *_: object) -> None:
        """Refuse a document type, which could declare entities."""
        raise self.malformed("it declares a document type")

    def malformed(self, what: str) -> VerificationError:
        """Make the error for malformed metadata."""
        return VerificationError(
            "metadata-malformed",
            f"'primary' cannot be read: {what}",
            place=f"repository {self.repository}",
            hint="the repository's metadata is invalid; report it to its maintainer",
        )

    def _keep(self) -> None:
        try:
            version = self.attributes["version"]
            nevra = Nevra(
                self.texts["name"],
                _number(version.get("epoch", "0")),
                version["ver"],
                version["rel"],
                self.texts["arch"],
            )
            name = f"{nevra.name}-{nevra.version}-{nevra.release}.{nevra.arch}.rpm"
            if name not in self.names:
                return
            if self.attributes["checksum"].get("type") != "sha256":
                raise VerificationError(
                    "checksum-weak",
                    f"{name} has no sha256 in the metadata",
                    place=f"repository {self.repository}",
                    hint="the repository must be indexed with sha256 (createrepo_c --checksum sha256)",
                )
            package = Package(
                nevra,
                Digest(self.texts["checksum"].strip()),
                _number(self.attributes["size"]["package"]),
                self.repository,
                self.attributes["location"]["href"],
                _number(self.attributes["time"].get("build", "0")),
                "",
                _number(self.attributes["size"].get("installed", "0")),
            )
        except (KeyError, ValueError) as error:
            raise self.malformed(f"incomplete package entry: {error}") from error
        before = self.found.get(name)
        if before is None or package.checksum < before.checksum:
            self.found[name] = package


def _number(text: str) -> int:
    """Parse a number in metadata, bounded by rpm's tags. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is not a valid number")
    return int(text)
