"""Parser of repositories' updateinfo.xml into advisories.

It is parsed element by element by the standard library's XML parser and not by libsolv: the results are plain values
that outlive the pool, can be shared between products and sent to workers, and oddities of a document can be reported.
Versions and module streams are compared in `pipeline.resolve.fixes`. Format: createrepo_c's updateinfo.xml, as Red Hat,
Fedora and SUSE write it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from xml.parsers import expat

from pipeline.digest import chunks
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.advisory import SECURITY, SEVERITIES, Advisories, Advisory, FixedPackage
from pipeline.model.package import NO_SOURCE_ARCH, SOURCE_ARCH
from pipeline.progress import QUIET, Progress
from pipeline.repos.metadata import metadata_file
from pipeline.repos.repository import OpenRepository
from pipeline.repos.xml_tree import parse_pieces
from pipeline.store import Store

UPDATEINFO_LIMIT = 1 << 30
"""Bytes, decompressed: the largest distributions have some 200 MiB."""

ADVISORIES_MOST = 200_000
ADVISED_PACKAGES_MOST = 4_000_000
"""Entries of one document: twenty times those of the largest."""

_CVES_MOST = 1000
"""CVEs of one advisory: a kernel's have some hundred."""

_DEPTH = 32
_TEXT_LIMIT = 4096
"""Characters of an id or a severity; titles are cut to as many."""

_SHOWN = 5
"""Names in a note."""

_WORDS = MappingProxyType(
    {
        **{word: word for word in SEVERITIES},
        "none": "",
        "n/a": "",
        "unknown": "",
        "unspecified": "",
        "not yet assigned": "",
        "emergency": "critical",
        "urgent": "critical",
        "high": "important",
        "medium": "moderate",
        "minor": "low",
        "negligible": "low",
        "unimportant": "low",
    }
)
"""Severities as distributions write them, in lower case (Bodhi's, Debian's and Red Hat's) → updateinfo's word."""

_CVE = re.compile(r"CVE-\d{4}-\d{4,9}(?!\d)", re.IGNORECASE)
_EPOCH = re.compile(r"[0-9]{1,10}")
_EPOCH_SECONDS = re.compile(r"[0-9]{1,11}")
_KEPT = frozenset({"id", "title", "severity"})


def read_advisories(repositories: Sequence[OpenRepository], *, store: Store, progress: Progress = QUIET) -> Advisories:
    """Read all advisories of `repositories`, in their order.

    They are read once for a platform and an architecture, and shared. Raises VerificationError `metadata-malformed` for
    a malformed or too large document, and as `metadata_file`.
    """
    given: list[Advisory] = []
    heard: list[str] = []
    silent: list[str] = []
    notes: list[str] = []
    for opened in repositories:
        found = metadata_file(opened, "updateinfo", store=store, progress=progress)
        if found is None:
            silent.append(opened.repository.id)
            continue
        reading = read_updateinfo(found[0], opened.repository.id)
        heard.append(opened.repository.id)
        given += reading.given
        notes += reading.notes
    return Advisories(tuple(given), tuple(heard), tuple(silent), tuple(notes))


def read_updateinfo(path: Path, repository: str) -> Advisories:
    """Parse one document. Raises VerificationError `metadata-malformed`."""
    reading = _Reading(repository)
    if path.stat().st_size > UPDATEINFO_LIMIT:
        raise reading.malformed(f"it has more than {UPDATEINFO_LIMIT >> 20} MiB")
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reading.begin
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.refuse
    with path.open("rb") as file:
        parse_pieces(parser, chunks(file), lambda why: reading.malformed(f"it is not well-formed XML: {why}"))
    return Advisories(tuple(reading.found), (repository,), (), reading.notes())


def parse_issued(text: str) -> int:
    """Parse an advisory's date to milliseconds since the epoch; 0 if it is no date.

    It is `1700000000`, `2023-11-14`, `2023-11-14 22:13:20` or ISO 8601 (UTC where no zone is given).
    """
    text = text.strip().removesuffix(" UTC")
    if _EPOCH_SECONDS.fullmatch(text):
        return int(text) * 1000
    try:
        moment = datetime.fromisoformat(text)
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0


@dataclass(slots=True)
class _Reading:
    """The state of the parser: what was read so far, and the advisory that is being read.

    An `update` is the second element from outside, and what is kept of its text the third.
    """

    repository: str
    found: list[Advisory] = field(default_factory=list)
    depth: int = 0
    packages_read: int = 0
    element: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    issued: str = ""
    cves: dict[str, None] = field(default_factory=dict)
    packages: dict[FixedPackage, None] = field(default_factory=dict)
    module: str = ""
    undated: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    nameless: int = 0
    broken: list[str] = field(default_factory=list)

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.malformed(f"elements are nested more than {_DEPTH} deep")
        if self.depth == 1 and tag != "updates":
            raise self.malformed(f"it is a <{tag[:80]}>, not <updates>")
        if self.depth == 2:
            self.kind = attributes.get("type", "").strip().lower()[:_TEXT_LIMIT]
            self.texts, self.issued, self.module = {}, "", ""
            self.cves, self.packages = {}, {}
        elif self.depth == 3:
            self.element = tag if tag in _KEPT else ""
            if tag == "issued":
                self.issued = attributes.get("date", "")
        elif tag == "reference":
            cve = attributes.get("id", "") if attributes.get("type") == "cve" else ""
            self._name_cves(cve, attributes.get("title", ""))
        elif tag == "collection":
            self.module = ""
        elif tag == "module":
            self.module = f"{attributes.get('name', '')}:{attributes.get('stream', '')}"
        elif tag == "package":
            self._package(attributes)

    def text(self, data: str) -> None:
        """Handle text of an element that is kept."""
        if self.element:
            known = self.texts.get(self.element, "") + data
            if len(known) > _TEXT_LIMIT and self.element != "title":
                raise self.malformed(f"'{self.element}' has more than {_TEXT_LIMIT} characters")
            self.texts[self.element] = known[:_TEXT_LIMIT]

    def end(self, _tag: str) -> None:
        """Handle the end of an element; at the end of an `update`, keep the advisory."""
        self.depth -= 1
        self.element = ""
        if self.depth == 1:
            self._keep()

    def refuse(self, *_: object) -> None:
        """Refuse a document type, which could declare entities."""
        raise self.malformed("it declares a document type")

    def malformed(self, what: str) -> VerificationError:
        """Make the error for a malformed document."""
        return VerificationError(
            "metadata-malformed",
            f"'updateinfo' cannot be read: {what}",
            place=f"repository {self.repository}",
            hint="the repository's metadata is invalid; report it to its maintainer",
        )

    def notes(self) -> tuple[str, ...]:
        """Return sentences about entries that could not be parsed."""
        told = [
            (self.undated, "an unreadable date, treated as old"),
            (self.odd, "an unknown severity, treated as none"),
            (self.broken, "packages without name, version, release or architecture, ignored"),
        ]
        said = [
            f"repository {self.repository}: advisories with {what}: {_listed(names)}" for names, what in told if names
        ]
        if self.nameless:
            said.append(f"repository {self.repository}: advisories without an id, ignored: {self.nameless}")
        return tuple(said)

    def _name_cves(self, *texts: str) -> None:
        for text in texts:
            self.cves.update(dict.fromkeys(found.upper() for found in _CVE.findall(text)))
        if len(self.cves) > _CVES_MOST:
            raise self.malformed(f"an advisory names more than {_CVES_MOST} CVEs")

    def _package(self, attributes: dict[str, str]) -> None:
        name, version, release, arch = (attributes.get(key, "") for key in ("name", "version", "release", "arch"))
        epoch = attributes.get("epoch", "").strip() or "0"
        self.packages_read += 1
        if self.packages_read > ADVISED_PACKAGES_MOST:
            raise self.malformed(f"it names more than {ADVISED_PACKAGES_MOST} packages")
        if arch in (SOURCE_ARCH, NO_SOURCE_ARCH):
            return
        if not (name and version and release and arch and _EPOCH.fullmatch(epoch)):
            if (own := self.texts.get("id", "").strip()) not in self.broken[-1:]:
                self.broken.append(own)
            return
        evr = f"{version}-{release}" if int(epoch) == 0 else f"{int(epoch)}:{version}-{release}"
        self.packages[FixedPackage(name, arch, evr, self.module)] = None

    def _keep(self) -> None:
        name = self.texts.get("id", "").strip()
        if not name:
            self.nameless += 1
            return
        if len(self.found) >= ADVISORIES_MOST:
            raise self.malformed(f"it has more than {ADVISORIES_MOST} advisories")
        word = " ".join(self.texts.get("severity", "").lower().split())
        issued = parse_issued(self.issued)
        title = " ".join(self.texts.get("title", "").split())
        self._name_cves(title)
        if self.kind == SECURITY and word not in _WORDS:
            self.odd.append(f"{name} ('{word[:40]}')")
        if self.kind == SECURITY and not issued:
            self.undated.append(name)
        self.found.append(
            Advisory(
                id=name,
                kind=self.kind,
                severity=_WORDS.get(word, ""),
                title=title,
                issued=issued,
                cves=tuple(sorted(self.cves)),
                packages=tuple(self.packages),
                repository=self.repository,
            )
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
