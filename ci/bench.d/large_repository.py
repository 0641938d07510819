"""Write a repository as large as Fedora's: metadata without packages, which is all that a solver reads.

Counts by package are like those of Fedora 41 for x86_64 (everything): some 2.3 KB of primary metadata, 12 requirements
and 6 provides each, 110 files, of which 4 stand in primary metadata. The same seed writes the same bytes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import zstandard

SEED = 20261127
LIBRARIES = 0.22
"""Share of the packages that are libraries: the others require their sonames."""

_WORDS = [
    *("library", "for", "access", "to", "data", "and", "files", "of", "the", "system", "with", "a", "simple", "that"),
    *("interface", "programs", "many", "languages", "use", "server", "client", "tools", "support", "modules"),
    *("documentation", "development", "headers", "runtime", "plugin", "bindings", "format", "parser"),
]
_FOLDERS = ("/usr/share/doc", "/usr/share/licenses", "/usr/lib64", "/usr/share/locale", "/usr/include", "/usr/lib")
_NAMESPACES = {
    "primary": 'xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"',
    "filelists": 'xmlns="http://linux.duke.edu/metadata/filelists"',
}
_ROOTS = {"primary": "metadata", "filelists": "filelists"}


def write_large_repository(folder: Path, packages: int, *, files: int = 110) -> list[str]:
    """Write `folder`/repodata; return names of packages to ask for, whose closures have some hundred packages."""
    repodata = folder / "repodata"
    repodata.mkdir(parents=True)
    drawn = list(_packages(packages, files))
    records = [_write(repodata, kind, [one[at] for one in drawn]) for at, kind in enumerate(_ROOTS)]
    (repodata / "repomd.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo">\n'
        f"<revision>1</revision>\n{''.join(records)}</repomd>\n"
    )
    return [_name(number, packages) for number in (packages - 7, packages - 400, packages // 2, packages // 900)]


def listed_files(repository: Path) -> tuple[str, str]:
    """Return two paths, of two packages, that only the file lists of such a repository have."""
    with (repository / "repodata/filelists.xml.zst").open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file).read(8 << 20).decode(errors="replace")
    begins = (text.index("<file>/usr/lib64/", at) + len("<file>") for at in (len(text) // 2, 3 * len(text) // 4))
    first, second = (text[begin:].partition("<")[0] for begin in begins)
    return first, second


def _write(repodata: Path, kind: str, entries: list[str]) -> str:
    """Write a document with zstd, as createrepo_c does; return its entry in repomd.xml."""
    stored = repodata / f"{kind}.xml.zst"
    opened, size = hashlib.sha256(), 0
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<{_ROOTS[kind]} {_NAMESPACES[kind]} packages="{len(entries)}">\n'
    with stored.open("wb") as file, zstandard.ZstdCompressor(level=10).stream_writer(file) as packed:
        for text in (head, *entries, f"</{_ROOTS[kind]}>\n"):
            data = text.encode()
            opened.update(data)
            size += len(data)
            packed.write(data)
    stored_digest = hashlib.sha256(stored.read_bytes()).hexdigest()
    return (
        f'<data type="{kind}"><checksum type="sha256">{stored_digest}</checksum>'
        f'<open-checksum type="sha256">{opened.hexdigest()}</open-checksum>'
        f'<location href="repodata/{stored.name}"/><timestamp>1</timestamp><size>{stored.stat().st_size}</size>'
        f"<open-size>{size}</open-size></data>\n"
    )


def _name(number: int, packages: int) -> str:
    return f"{_WORDS[number % len(_WORDS)]}{number}" if number >= packages * LIBRARIES else f"lib{number}"


def _packages(count: int, files: int) -> Iterator[tuple[str, str]]:
    """Yield the entries of each package in primary and filelists."""
    chance = random.Random(SEED)
    libraries = int(count * LIBRARIES)
    for number in range(count):
        name = _name(number, count)
        arch = "noarch" if number > libraries and chance.random() < 0.35 else "x86_64"
        version = f"{1 + number % 9}.{number % 23}.{number % 7}"
        release = f"{1 + number % 5}.fc41"
        pkgid = hashlib.sha256(f"{SEED} {number}".encode()).hexdigest()
        own = _files(number, name, files, chance)
        head = f'<version epoch="0" ver="{version}" rel="{release}"/>'
        primary = (
            f'<package type="rpm">\n  <name>{name}</name>\n  <arch>{arch}</arch>\n  {head}\n'
            f'  <checksum type="sha256" pkgid="YES">{pkgid}</checksum>\n  <summary>{_text(chance, 6)}</summary>\n'
            f"  <description>{_text(chance, 50)}</description>\n  <packager>Project</packager>\n"
            f'  <url>https://example.org/{name}</url>\n  <time file="1700000000" build="1700000000"/>\n'
            f'  <size package="{20_000 + number}" installed="{90_000 + number}" archive="{91_000 + number}"/>\n'
            f'  <location href="Packages/{name[0]}/{name}-{version}-{release}.{arch}.rpm"/>\n  <format>\n'
            f"    <rpm:license>MIT AND BSD-3-Clause</rpm:license>\n    <rpm:vendor>Project</rpm:vendor>\n"
            f"    <rpm:group>Unspecified</rpm:group>\n    <rpm:buildhost>builder.example.org</rpm:buildhost>\n"
            f"    <rpm:sourcerpm>{name}-{version}-{release}.src.rpm</rpm:sourcerpm>\n"
            f'    <rpm:header-range start="4504" end="{9_000 + number % 5000}"/>\n'
            f"{_section('provides', _provides(number, name, version, release, libraries))}"
            f"{_section('requires', _requires(number, libraries, chance))}"
            f"{_weak(number, libraries, count, chance)}"
            + "".join(f"    <file>{path}</file>\n" for path in own[:4] if "bin/" in path or path.startswith("/etc/"))
            + "  </format>\n</package>\n"
        )
        listed = "".join(f"  <file>{path}</file>\n" for path in own)
        yield primary, f'<package pkgid="{pkgid}" name="{name}" arch="{arch}">\n  {head}\n{listed}</package>\n'


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _files(number: int, name: str, most: int, chance: random.Random) -> list[str]:
    """Return a package's paths; the first may be those that primary metadata has too."""
    own = [f"/usr/bin/{name}"] if number % 3 == 0 else []
    own += [f"/usr/sbin/{name}d", f"/etc/{name}.conf", f"/etc/sysconfig/{name}"] if number % 20 == 0 else []
    own += ["/usr/bin/sh", "/usr/bin/bash"] if number == 1 else []
    if number == 2:
        own += ["/usr/sbin/ldconfig", "/usr/bin/python3", "/usr/bin/perl"]
    folder = f"{_FOLDERS[number % len(_FOLDERS)]}/{name}"
    count = min(int(chance.expovariate(1 / most)), most * 30) if most else 0
    return own + [f"{folder}/part{at // 20}/file{at}.{number % 7}" for at in range(count)]


def _section(kind: str, entries: list[str]) -> str:
    if not entries:
        return ""
    return f"    <rpm:{kind}>\n" + "".join(f"      <rpm:entry {one}/>\n" for one in entries) + f"    </rpm:{kind}>\n"


def _provides(number: int, name: str, version: str, release: str, libraries: int) -> list[str]:
    evr = f'flags="EQ" epoch="0" ver="{version}" rel="{release}"'
    found = [f'name="{name}" {evr}', f'name="{name}(x86-64)" {evr}']
    if number < libraries:
        found += [f'name="lib{number}.so.{one}()(64bit)"' for one in range(1 + number % 3)]
        found += [f'name="lib{number}.so.0(LIB{number}_1.{one})(64bit)"' for one in range(number % 6)]
    else:
        found += [f'name="python3dist({name})" flags="EQ" epoch="0" ver="{version}"'] if number % 4 == 0 else []
        found += [f'name="bundled(part{number % 900}-{one})"' for one in range(number % 5)]
        found += [f'name="perl({name.title()}::P{one})" flags="EQ" epoch="0" ver="1"' for one in range(number % 7)]
    if number % 40 == 0:
        found.append(f'name="virtual{number % 600}"')
    return found


def _requires(number: int, libraries: int, chance: random.Random) -> list[str]:
    """Requirements lead to packages with lower numbers, the lower the more often, but for a circle now and then."""
    found: list[str] = []
    if number > 3:
        found += ['name="/usr/bin/sh" pre="1"'] if number % 3 == 0 else []
        found += ['name="/usr/sbin/ldconfig" pre="1"'] if number % 9 == 0 else []
        found += ['name="/usr/bin/python3"'] if number % 8 == 0 else []
    below = min(number, libraries)
    for _ in range(int(chance.expovariate(1 / (10 if number > libraries else 3))) if below else 0):
        other = int(below * chance.random() ** 8)
        found.append(f'name="lib{other}.so.{chance.randrange(1 + other % 3)}()(64bit)"')
    if number > libraries + 50 and number % 2:
        found.append(f'name="{_name_of(number - 1 - chance.randrange(40), libraries)}"')
    if number % 50 == 0 and number:
        found.append(f'name="virtual{(number % 40) * 40 % 600 // 40 * 40}"')
    if number % 70 == 0 and number > libraries:
        found.append(f'name="(lib{number % libraries} if lib{number % 97})"')
    return list(dict.fromkeys(found))


def _name_of(number: int, libraries: int) -> str:
    return f"{_WORDS[number % len(_WORDS)]}{number}" if number >= libraries else f"lib{number}"


def _weak(number: int, libraries: int, count: int, chance: random.Random) -> str:
    """Recommendations, supplements, and an obsolete name now and then."""
    found = ""
    if number % 11 == 0:
        found += _section("recommends", [f'name="{_name(chance.randrange(count), count)}"'])
    if number % 90 == 0:
        other = _name(chance.randrange(libraries), count)
        found += _section("supplements", [f'name="({other} and lib{number % 50})"'])
    if number % 25 == 0:
        found += _section("obsoletes", [f'name="former{number}" flags="LT" epoch="0" ver="2"'])
    return found
