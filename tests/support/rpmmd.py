"""Writes small RPM repositories for tests: metadata without packages, which is all that a solver needs."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import zstandard

_PRIMARY = re.compile(r"/etc/|/usr/lib/sendmail$|.*bin/")
_FLAGS = {"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}
_COMPRESS = {
    "": bytes,
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": zstandard.compress,
}


@dataclass(frozen=True)
class Rpm:
    """What the metadata says of one package. Dependencies are written as in a spec file; `pre` are
    requirements of scriptlets."""

    name: str
    evr: str = "1-1"
    arch: str = "noarch"
    provides: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    pre: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    supplements: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    build_time: int = 1_700_000_000
    checksum_type: str = "sha256"
    location: str = ""

    @property
    def nevra(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"

    @property
    def checksum(self) -> str:
        return hashlib.new(self.checksum_type, repr(self).encode()).hexdigest()


def _split(evr: str) -> tuple[str, str, str]:
    epoch, _, rest = evr.rpartition(":")
    version, _, release = rest.partition("-")
    return epoch or "0", version, release


def _entry(text: str, *, pre: bool = False) -> str:
    words = text.split() if not text.startswith("(") else [text]
    attributes = f"name={quoteattr(words[0])}"
    if len(words) == 3:
        epoch, version, release = _split(words[2])
        attributes += f' flags="{_FLAGS[words[1]]}" epoch="{epoch}" ver="{version}"'
        attributes += f' rel="{release}"' if release else ""
    return f"<rpm:entry {attributes}{' pre=' + quoteattr('1') if pre else ''}/>"


def _section(name: str, texts: Sequence[str], pre: Sequence[str] = ()) -> str:
    entries = [_entry(text) for text in texts] + [_entry(text, pre=True) for text in pre]
    return f"<rpm:{name}>{''.join(entries)}</rpm:{name}>" if entries else ""


def _primary(rpm: Rpm) -> str:
    epoch, version, release = _split(rpm.evr)
    own = f"{rpm.name} = {rpm.evr}"
    files = "".join(f"<file>{escape(file)}</file>" for file in rpm.files if _PRIMARY.match(file))
    location = rpm.location or f"{rpm.nevra.replace(':', '_')}.rpm"
    return (
        f'<package type="rpm"><name>{escape(rpm.name)}</name><arch>{rpm.arch}</arch>'
        f'<version epoch="{epoch}" ver="{version}" rel="{release}"/>'
        f'<checksum type="{rpm.checksum_type}" pkgid="YES">{rpm.checksum}</checksum><summary>s</summary>'
        f'<description>d</description><time file="1" build="{rpm.build_time}"/>'
        f'<size package="100" installed="200" archive="300"/><location href={quoteattr(location)}/><format>'
        f"<rpm:sourcerpm>{rpm.name}-1-1.src.rpm</rpm:sourcerpm>"
        + _section("provides", (*rpm.provides, own))
        + _section("requires", rpm.requires, rpm.pre)
        + _section("conflicts", rpm.conflicts)
        + _section("obsoletes", rpm.obsoletes)
        + _section("recommends", rpm.recommends)
        + _section("supplements", rpm.supplements)
        + f"{files}</format></package>\n"
    )


def _filelists(rpm: Rpm) -> str:
    epoch, version, release = _split(rpm.evr)
    files = "".join(f"<file>{escape(file)}</file>" for file in rpm.files)
    return (
        f'<package pkgid="{rpm.checksum}" name={quoteattr(rpm.name)} arch="{rpm.arch}">'
        f'<version epoch="{epoch}" ver="{version}" rel="{release}"/>{files}</package>\n'
    )


def write_repository(
    folder: Path,
    rpms: Sequence[Rpm],
    *,
    revision: str = "1",
    compression: str = "gz",
    modules: str = "",
    comps: str = "",
) -> str:
    """Write `folder`/repodata and return the repository's URL."""
    (folder / "repodata").mkdir(parents=True, exist_ok=True)
    common = 'xmlns="http://linux.duke.edu/metadata/{}" xmlns:rpm="http://linux.duke.edu/metadata/rpm"'
    documents = {
        "primary": f'<metadata {common.format("common")} packages="{len(rpms)}">'
        + "".join(map(_primary, rpms))
        + "</metadata>",
        "filelists": f'<filelists {common.format("filelists")} packages="{len(rpms)}">'
        + "".join(map(_filelists, rpms))
        + "</filelists>",
    }
    if modules:
        documents["modules"] = modules
    if comps:
        documents["group_gz" if compression == "gz" else "group"] = comps
    records = "".join(
        write_document(folder, kind, text.encode(), compression=compression) for kind, text in documents.items()
    )
    write_repomd(folder, records, revision)
    return folder.as_uri()


def write_document(folder: Path, kind: str, data: bytes, *, compression: str = "gz") -> str:
    """Write one metadata document; returns its entry in repomd.xml."""
    stored = _COMPRESS[compression](data)
    checksum = hashlib.sha256(stored).hexdigest()
    name = f"repodata/{checksum}-{kind}.xml{'.' if compression else ''}{compression}"
    (folder / name).write_bytes(stored)
    return (
        f'<data type="{kind}"><checksum type="sha256">{checksum}</checksum>'
        f'<open-checksum type="sha256">{hashlib.sha256(data).hexdigest()}</open-checksum>'
        f'<location href="{name}"/><timestamp>1</timestamp><size>{len(stored)}</size>'
        f"<open-size>{len(data)}</open-size></data>"
    )


def write_repomd(folder: Path, records: str, revision: str = "1") -> None:
    """Write repomd.xml around entries that `write_document` returned."""
    (folder / "repodata" / "repomd.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo">'
        f"<revision>{revision}</revision>{records}</repomd>\n"
    )
