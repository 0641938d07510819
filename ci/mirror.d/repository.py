"""An RPM repository: packages, metadata, advisories, signature; put in place by one rename."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from catalogue import Update
from signing import Signer

Compression = Literal["gzip", "zstd"]

_REPO = "http://linux.duke.edu/metadata/repo"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def assemble(
    folder: Path,
    packages: Iterable[Path],
    compression: Compression,
    advisories: Mapping[str, Update],
    signer: Signer,
) -> None:
    """Make a repository in ``folder`` (which must not exist) from links to ``packages``.

    ``advisories`` are by package name; those of packages that are not here are left out.
    """
    folder.mkdir(parents=True)
    for package in packages:
        _link(package, folder / package.name)
    revision = str(_newest(packages))
    _run(
        *("createrepo_c", "--quiet", "--no-database", "--checksum=sha256", "--general-compress-type=gz"),
        *("--set-timestamp-to-revision", "--revision", revision, str(folder)),
    )
    repodata = folder / "repodata"
    if advisories:
        updateinfo = folder.parent / "updateinfo.xml"
        updateinfo.write_bytes(_updateinfo(folder, advisories))
        _run(
            *("modifyrepo_c", "--checksum=sha256", "--mdtype=updateinfo", "--compress-type=gz"),
            *(str(updateinfo), str(repodata)),
        )
        updateinfo.unlink()
    if compression == "zstd":
        _recompress(repodata)
    signer.sign_detached(repodata / "repomd.xml")


def _recompress(repodata: Path) -> None:
    """Turn gzip metadata into zstd, which createrepo_c writes only from 0.21 on."""
    ElementTree.register_namespace("", _REPO)
    ElementTree.register_namespace("rpm", "http://linux.duke.edu/metadata/rpm")
    tree = ElementTree.parse(repodata / "repomd.xml")
    for data in tree.iterfind(f"{{{_REPO}}}data"):
        location = data.find(f"{{{_REPO}}}location")
        checksum, size = data.find(f"{{{_REPO}}}checksum"), data.find(f"{{{_REPO}}}size")
        assert location is not None and checksum is not None and size is not None
        old = repodata.parent / location.attrib["href"]
        plain = gzip.decompress(old.read_bytes())
        packed = subprocess.run(["zstd", "-q", "-10", "--stdout"], input=plain, capture_output=True, check=True).stdout
        digest = hashlib.sha256(packed).hexdigest()
        name = f"{digest}-{data.attrib['type']}.xml.zst"
        (repodata / name).write_bytes(packed)
        old.unlink()
        location.set("href", f"repodata/{name}")
        checksum.text, size.text = digest, str(len(packed))
    tree.write(repodata / "repomd.xml", encoding="UTF-8", xml_declaration=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _newest(packages: Iterable[Path]) -> int:
    stamps = _query("%{BUILDTIME}\n", *packages).split()
    return max(map(int, stamps), default=0)


def _query(form: str, *packages: Path) -> str:
    command = ["rpm", "-qp", "--nosignature", "--nodigest", "--qf", form, *map(str, packages)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _run(*command: str) -> None:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")


def _updateinfo(folder: Path, advisories: Mapping[str, Update]) -> bytes:
    """Write the advisories in the form that dnf and libsolv read (updateinfo.xml)."""
    form = "%{NAME}\t%{EPOCHNUM}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\t%{BUILDTIME}\n"
    updates = ElementTree.Element("updates")
    for file in sorted(folder.glob("*.rpm")):
        name, epoch, version, release, arch, source, built = _query(form, file).rstrip("\n").split("\t")
        if update := advisories.get(name):
            issued = datetime.fromtimestamp(int(built), UTC)
            collection = _advisory(updates, update, f"{issued:%Y-%m-%d %H:%M:%S}")
            nevra = {"name": name, "epoch": epoch, "version": version, "release": release, "arch": arch}
            package = ElementTree.SubElement(collection, "package", {**nevra, "src": source})
            ElementTree.SubElement(package, "filename").text = file.name
    ElementTree.indent(updates)
    document: bytes = ElementTree.tostring(updates, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _advisory(updates: ElementTree.Element, update: Update, issued: str) -> ElementTree.Element:
    """Add ``update`` to ``updates``; return the collection that its packages go into."""
    head = {"from": "mirror@relbuild.invalid", "status": "final", "type": update.kind, "version": "1"}
    entry = ElementTree.SubElement(updates, "update", head)
    ElementTree.SubElement(entry, "id").text = update.advisory
    ElementTree.SubElement(entry, "title").text = update.title
    ElementTree.SubElement(entry, "issued", {"date": issued})
    ElementTree.SubElement(entry, "updated", {"date": issued})
    ElementTree.SubElement(entry, "severity").text = update.severity
    ElementTree.SubElement(entry, "summary").text = update.title
    ElementTree.SubElement(entry, "description").text = update.description
    references = ElementTree.SubElement(entry, "references")
    for cve in update.cves:
        href = f"https://relbuild.invalid/{cve}"
        ElementTree.SubElement(references, "reference", {"href": href, "id": cve, "type": "cve", "title": cve})
    packages = ElementTree.SubElement(entry, "pkglist")
    collection = ElementTree.SubElement(packages, "collection", {"short": "updates"})
    ElementTree.SubElement(collection, "name").text = "updates"
    return collection


def put_in_place(new: Path, place: Path) -> None:
    """Let ``new`` take the name ``place``; what stood there is removed after the exchange.

    A folder cannot replace a folder by rename(2); renameat2(2) with RENAME_EXCHANGE can, so a
    reader sees the old repository or the new one, and never none.
    """
    if not place.exists():
        new.rename(place)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(place), _RENAME_EXCHANGE)
    if failed:  # a file system that cannot: the gap is one system call wide
        aside = new.with_name(new.name + ".old")
        place.rename(aside)
        new.rename(place)
        shutil.rmtree(aside)
    else:
        shutil.rmtree(new)
