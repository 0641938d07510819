"""Parsers of repomd.xml, metalinks and mirror lists.

Formats: createrepo_c's repomd.xml; metalink 3.0 as MirrorManager writes it (with `mm0:alternates`, the
repomd.xml of a moment ago that slower mirrors still serve); a mirrorlist is one URL a line, with comments and blank
lines. Variables that an answer holds literally are replaced, as librepo does (lr_lrmirror_new).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.repos.variables import expand_answer
from pipeline.repos.xml_tree import OTHER_ANSWER_HINT, Element, parse_xml
from pipeline.urls import DEFAULT_PORTS, parse_url

RECORD_SIZE_LIMIT = 4 << 30
"""Bytes of one metadata document, decompressed. The largest filelists have about one GiB."""

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})

_INDEX_HINT = "the repository's index is damaged or unfinished: make it again (createrepo_c), or use another mirror"
_LIST_HINT = "correct the address and its variables, or name the repository's root with 'baseurls'"

_ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
_REPOMD = "/repodata/repomd.xml"
_KIND_SHOWN = 80
"""Characters of a record's kind in messages: the longest known one has some thirty."""
_MIRRORS = 200
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PREFERENCE = re.compile(r"[0-9]{1,9}")
"""A metalink's preference: 100 to 1 in practice, as MirrorManager counts down."""


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest by sha256, sha384 or sha512; weaker algorithms are refused."""

    algorithm: str
    hex: str

    @classmethod
    def of(cls, algorithm: str, value: str, *, place: str) -> Checksum:
        """Make a checksum. Raises VerificationError `checksum-weak` or `checksum-malformed`."""
        algorithm, value = algorithm.strip().lower(), value.strip().lower()
        if algorithm not in _ALGORITHMS:
            raise VerificationError(
                "checksum-weak",
                f"checksum algorithm '{algorithm[:20]}' is too weak",
                place=place,
                hint="the repository must be indexed with sha256 (createrepo_c --checksum sha256)",
            )
        if not re.fullmatch(rf"[0-9a-f]{{{_ALGORITHMS[algorithm]}}}", value):
            raise VerificationError(
                "checksum-malformed", f"'{value[:80]}' is not a {algorithm} checksum", place=place, hint=_INDEX_HINT
            )
        return cls(algorithm, value)

    def matches(self, data: bytes) -> bool:
        """Return whether this is the checksum of `data`."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class MetadataRecord:
    """The entry of one metadata document in repomd.xml.

    `location` is below the repository's root; `checksum` and `size` are of the stored file, `open_checksum` and
    `open_size` of its decompressed content.
    """

    kind: str
    location: str
    checksum: Checksum
    size: int | None
    open_checksum: Checksum | None
    open_size: int | None


@dataclass(frozen=True, slots=True)
class Repomd:
    """A parsed repomd.xml: its revision (text; a number in practice) and its records by kind."""

    revision: str
    records: Mapping[str, MetadataRecord]


@dataclass(frozen=True, slots=True)
class Metalink:
    """The content of a metalink: repository roots, and the allowed checksums of repomd.xml.

    Roots are sorted best first, allowed checksums newest first.
    """

    base_urls: tuple[str, ...]
    checksums: tuple[Checksum, ...]


def parse_repomd(data: bytes, name: str) -> Repomd:
    """Parse repomd.xml. Raises VerificationError `repomd-malformed` and as `parse_xml`."""
    root = parse_xml(data, name)
    if root.name != "repomd":
        raise VerificationError(
            "repomd-malformed", f"{name} is a <{root.name}>, not a <repomd>", place=name, hint=OTHER_ANSWER_HINT
        )
    records: dict[str, MetadataRecord] = {}
    for element in root.children:
        if element.name == "data" and element.attributes.get("type"):
            record = _record(element, name)
            records.setdefault(record.kind, record)
    if "primary" not in records:
        raise VerificationError("repomd-malformed", f"{name} lists no primary metadata", place=name, hint=_INDEX_HINT)
    return Repomd(root.value("revision"), MappingProxyType(records))


def _record(element: Element, name: str) -> MetadataRecord:
    kind = element.attributes["type"]
    shown = kind[:_KIND_SHOWN]
    place = f"{name}, {shown}"
    location = element.find("location")
    checksum = element.find("checksum")
    if location is None or checksum is None:
        raise VerificationError(
            "repomd-malformed", f"'{shown}' has no location or checksum", place=place, hint=_INDEX_HINT
        )
    opened = element.find("open-checksum")
    return MetadataRecord(
        kind,
        safe_location(location.attributes.get("href", ""), place=place),
        Checksum.of(checksum.attributes.get("type", ""), checksum.text, place=place),
        _size(element, "size", place),
        Checksum.of(opened.attributes.get("type", ""), opened.text, place=place) if opened else None,
        _size(element, "open-size", place),
    )


def _size(element: Element, name: str, place: str) -> int | None:
    text = element.value(name)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) > RECORD_SIZE_LIMIT:
        raise VerificationError(
            "repomd-malformed", f"'{text[:40]}' is not a valid {name}", place=place, hint=_INDEX_HINT
        )
    return int(text)


def safe_location(text: str, *, place: str) -> str:
    """Return `text` if it is a path below a repository's root.

    Raises VerificationError `location-escapes` for one that is not.
    """
    parts = text.split("/")
    if not text or text.startswith("/") or ".." in parts or _SCHEME.match(text) or "\\" in text or "\0" in text:
        raise VerificationError(
            "location-escapes", f"'{text[:200]}' leads out of the repository", place=place, hint=_INDEX_HINT
        )
    return text


def location_url(base: str, location: str, *, place: str) -> str:
    """Return the URL of a package at `location` of the repository with the root `base`.

    Over HTTP it may be above the repository, as in Amazon's (`../../../../blobstore/…`), but not above the server's
    root; its checksum is known. Raises VerificationError `location-escapes`.
    """
    parts = location.split("/")
    above = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    below = safe_location("/".join(parts[above:]), place=place)
    root = parse_url(base)
    if above and root is not None and root.scheme in DEFAULT_PORTS:
        folders = [part for part in root.path.split("/") if part]
        if above <= len(folders):
            base = base[: len(base) - len(root.path)] + "".join(f"/{part}" for part in folders[: len(folders) - above])
            above = 0
    if above:
        raise VerificationError(
            "location-escapes", f"'{location[:200]}' leads out of the repository", place=place, hint=_INDEX_HINT
        )
    return f"{base}/{quote(below)}"


def location_urls(bases: Sequence[str], location: str, *, place: str) -> tuple[str, ...]:
    """Return the URLs of a package on the mirrors with the roots `bases`, in their order.

    Mirrors have different numbers of folders above the repository: those with too few for a location above it are
    left out. Raises VerificationError `location-escapes` if none is left.
    """
    urls: list[str] = []
    refused: list[VerificationError] = []
    for base in bases:
        try:
            urls.append(location_url(base, location, place=place))
        except VerificationError as error:
            refused.append(error)
    if refused and not urls:
        raise refused[0]
    return tuple(urls)


def parse_metalink(
    data: bytes, name: str, variables: Mapping[str, str] = NO_VARIABLES, *, local: bool = False
) -> Metalink:
    """Parse a metalink, `$variables` in its URLs replaced.

    `local`: it is a file of this machine, and may name others; one from the network may not. Raises
    VerificationError `metalink-malformed`.
    """
    root = parse_xml(data, name)
    file = next((one for one in root.all("file") if one.attributes.get("name") == "repomd.xml"), None)
    if root.name != "metalink" or file is None:
        raise VerificationError(
            "metalink-malformed", f"{name} has no entry for repomd.xml", place=name, hint=OTHER_ANSWER_HINT
        )
    checksums = []
    for verification in file.all("verification"):
        strong = [h for h in verification.children if h.attributes.get("type", "").lower() in _ALGORITHMS]
        # Of each version's checksums only the longest counts, so that a weaker one cannot match instead.
        for best in sorted(strong, key=lambda h: h.attributes["type"])[-1:]:
            checksums.append(Checksum.of(best.attributes["type"], best.text, place=name))
    if not checksums:
        raise VerificationError(
            "metalink-malformed", f"{name} has no sha256 of repomd.xml", place=name, hint=_LIST_HINT
        )
    urls: list[tuple[int, str]] = []
    resources = file.find("resources")
    for url in resources.children if resources else ():
        address = expand_answer(url.text.strip(), variables)
        if _has_known_scheme(address, local=local) and address.endswith(_REPOMD):
            preference = url.attributes.get("preference", "0")
            urls.append((-int(preference) if _PREFERENCE.fullmatch(preference) else 0, address.removesuffix(_REPOMD)))
    if not urls:
        raise VerificationError(
            "metalink-malformed", f"{name} lists no mirror by http or https", place=name, hint=_LIST_HINT
        )
    ordered = [url for _, url in sorted(urls, key=lambda one: one[0])]
    return Metalink(tuple(dict.fromkeys(ordered))[:_MIRRORS], tuple(dict.fromkeys(checksums)))


def parse_mirrorlist(
    data: bytes, name: str, variables: Mapping[str, str] = NO_VARIABLES, *, local: bool = False
) -> tuple[str, ...]:
    """Return repository roots in the list's order, `$variables` in them replaced.

    `local`: it is a file of this machine, and may name others; one from the network may not. Comments, blank lines
    and URLs of other schemes are ignored. Raises VerificationError `mirrorlist-malformed`, also
    for a text that begins like HTML.
    """
    text = data.decode(errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        raise VerificationError(
            "mirrorlist-malformed",
            f"{name} is a page, not a list of mirrors",
            place=name,
            hint="a proxy or the sign-on page of a network answers instead of the server, or the URL is another's",
        )
    lines = [expand_answer(line.strip(), variables) for line in text.splitlines()]
    urls = [line.rstrip("/") for line in lines if _has_known_scheme(line, local=local)]
    if not urls:
        raise VerificationError("mirrorlist-malformed", f"{name} lists no mirror", place=name, hint=_LIST_HINT)
    return tuple(dict.fromkeys(urls))[:_MIRRORS]


def _has_known_scheme(address: str, *, local: bool) -> bool:
    url = parse_url(address)
    if url is None or url.scheme == "file":
        return local and url is not None
    return url.scheme in DEFAULT_PORTS and bool(url.host)
