"""Writes `history.json`: the packages of the development mirror with their real sizes and requirements, and on which
days their sources really changed, out of Debian's changelogs.

Usage: extract.py MIRROR (the folder that ci/mirror made, with its .private/debs). Sizes and requirements are those of
the RPMs in MIRROR/base that were made from Debian's packages; the source of each, and every entry of its changelog
since SINCE, are read from the Debian package itself, because the RPM's own changelog ends after twenty entries. All
packages of a source have the same changelog, so one that brings none borrows it.
"""

from __future__ import annotations

import datetime
import gzip
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import rpm

HERE = Path(__file__).parent
SINCE = datetime.date(2015, 1, 1).toordinal()
_FOOT = re.compile(r"^ -- .+?  (.+)$", re.MULTILINE)

sys.path.insert(0, str(HERE.parent / "mirror.d"))
from catalogue import load  # noqa: E402


def deb_source(deb: Path) -> str:
    """The name of the source package of a Debian package."""
    fields = subprocess.run(
        ["dpkg-deb", "--field", deb, "Package", "Source"], capture_output=True, text=True, check=True
    ).stdout
    values = dict(line.split(": ", 1) for line in fields.splitlines())
    return values.get("Source", values["Package"]).split()[0]


def deb_days(deb: Path) -> Iterator[int]:
    """The days (proleptic ordinals) of the entries of a Debian package's changelog."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        found = {}
        for member in archive:
            name = member.name.rpartition("/")[2]
            if member.isfile() and "/usr/share/doc/" in member.name and name in ("changelog.Debian.gz", "changelog.gz"):
                content = archive.extractfile(member)
                if content is not None:
                    found[name] = gzip.decompress(content.read()).decode("utf-8", "replace")
    for when in _FOOT.findall(found.get("changelog.Debian.gz") or found.get("changelog.gz", "")):
        try:
            yield parsedate_to_datetime(when.strip()).date().toordinal()
        except ValueError:
            continue  # A date that somebody mistyped, years ago.


def headers(folder: Path) -> dict[str, tuple[rpm.hdr, int]]:
    """Header and size of every RPM below a folder, by name."""
    transaction = rpm.TransactionSet("/", 0)
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES)
    found = {}
    for path in sorted(folder.rglob("*.rpm")):
        with path.open("rb") as file:
            header = transaction.hdrFromFdno(file.fileno())
        found[header[rpm.RPMTAG_NAME]] = (header, path.stat().st_size)
    return found


def requirements(chosen: dict[str, tuple[rpm.hdr, int]]) -> dict[str, list[str]]:
    """Package → the chosen packages that satisfy its requirements, sorted; of several the first by name."""
    provides: dict[str, str] = {}
    for name, (header, _) in sorted(chosen.items(), reverse=True):
        for what in (*header[rpm.RPMTAG_PROVIDENAME], *header[rpm.RPMTAG_FILENAMES]):
            provides[what] = name
    return {
        name: sorted({provides[what] for what in header[rpm.RPMTAG_REQUIRENAME] if what in provides} - {name})
        for name, (header, _) in chosen.items()
    }


def main() -> None:
    mirror = Path(sys.argv[1])
    state = json.loads((mirror / "state.json").read_text())
    conversions = load(HERE.parent / "mirror.d/catalogue.toml").conversions_for(state["debian"])
    sources: dict[str, set[int]] = {}
    source_of = {}
    for name, conversion in conversions.items():
        for number, deb in enumerate(conversion.debs):
            path = mirror / ".private/debs" / f"{state['debian'][deb]['sha256']}.deb"
            source = deb_source(path)
            if number == 0:
                source_of[name] = source
            sources.setdefault(source, set()).update(day for day in deb_days(path) if day >= SINCE)
    chosen = {name: found for name, found in headers(mirror / "base").items() if name in source_of}
    needs = requirements(chosen)
    packages = {name: (source_of[name], size, needs[name]) for name, (_, size) in sorted(chosen.items())}
    used = {source for source, _, _ in packages.values()}
    lines = [
        "{",
        ' "packages": {',
        ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in packages.items()),
        " },",
        ' "sources": {',
        ",\n".join(f"  {json.dumps(name)}: {json.dumps(sorted(sources[name]))}" for name in sorted(used)),
        " }",
        "}",
    ]
    (HERE / "history.json").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
