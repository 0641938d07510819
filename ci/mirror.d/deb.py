"""What a Debian binary package holds: control data, file entries, changelog, licences.

Contents are trusted as far as Debian's archive signature goes: ``archive`` has checked it.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

Kind = Literal["file", "directory", "symlink"]

MERGED_DIRECTORIES = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
_CHANGELOG_HEAD = re.compile(r"^[a-z0-9][a-z0-9+.-]* \((?P<version>[^)]+)\)")
_CHANGELOG_FOOT = re.compile(r"^ -- (?P<who>.+?)  (?P<when>.+)$")
CHANGELOG_ENTRIES = 20
CHANGELOG_LINES = 60


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a package's payload at its canonical (usr-merged) path."""

    path: str
    kind: Kind
    mode: int
    user: str
    group: str
    mtime: int


@dataclass(frozen=True, slots=True)
class ChangelogEntry:
    """One upload: who, when, which version, and its lines, already flattened."""

    who: str
    when: datetime
    version: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """The control fields and control files of a package, as far as they are used."""

    version: str
    summary: str
    description: str
    homepage: str
    conffiles: frozenset[str]


def canonical(path: str) -> str:
    """Return the path with the usr-merge symlinks (and /var/run) followed: ``/lib/x`` → ``/usr/lib/x``."""
    parts = PurePosixPath("/" + path.lstrip("./")).parts[1:] if path.strip("./") else ()
    if parts and parts[0] in MERGED_DIRECTORIES:
        parts = ("usr", *parts)
    elif parts[:2] == ("var", "run"):
        parts = ("run", *parts[2:])
    return "/" + "/".join(parts)


def read_control(deb: Path) -> Control:
    """Read the control archive of ``deb``."""
    fields = subprocess.run(
        ["dpkg-deb", "--field", deb, "Version", "Description", "Homepage"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values: dict[str, str] = {}
    name = ""
    for line in fields.splitlines():
        if line.startswith(" "):
            values[name] += "\n" + line[1:]
        else:
            name, _, value = line.partition(":")
            values[name] = value.strip()
    summary, _, description = values["Description"].partition("\n")
    conffiles = subprocess.run(
        ["dpkg-deb", "--info", deb, "conffiles"], capture_output=True, text=True, check=False
    ).stdout
    return Control(
        version=values["Version"],
        summary=summary,
        description=re.sub(r"(?m)^\.$", "", description).strip() or summary,
        homepage=values.get("Homepage", ""),
        conffiles=frozenset(canonical(line) for line in conffiles.splitlines() if line.startswith("/")),
    )


def unpack(deb: Path, root: Path, keep: Callable[[str], bool]) -> list[Member]:
    """Unpack the kept paths of ``deb`` below ``root``; return what is there, in archive order.

    Hard links stay hard links, times are those of the package; owners stay the caller's, since
    they go into the RPM header by name.
    """
    members: list[Member] = []
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        stream = cast("IO[bytes]", process.stdout)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for entry in archive:
                path = canonical(entry.name)
                if path == "/" or not keep(path):
                    continue
                kind = _place(archive, entry, root, path)
                if kind is not None:
                    members.append(
                        Member(
                            path,
                            kind,
                            entry.mode,
                            entry.uname or "root",
                            entry.gname or "root",
                            int(entry.mtime),
                        )
                    )
    if process.returncode != 0:
        raise OSError(f"dpkg-deb could not read {deb}")
    return members


def _place(archive: tarfile.TarFile, entry: tarfile.TarInfo, root: Path, path: str) -> Kind | None:
    target = root / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.isdir():
        target.mkdir(exist_ok=True)
        return "directory"
    if entry.issym():
        target.symlink_to(entry.linkname)
        os.utime(target, (entry.mtime, entry.mtime), follow_symlinks=False)
        return "symlink"
    if entry.islnk():
        target.hardlink_to(root / canonical(entry.linkname)[1:])
        return "file"
    content = archive.extractfile(entry)
    if content is None:
        return None
    with content, target.open("wb") as out:
        while block := content.read(1 << 20):
            out.write(block)
    target.chmod(entry.mode & 0o777)
    os.utime(target, (entry.mtime, entry.mtime))
    return "file"


def read_changelog(root: Path, name: str) -> list[ChangelogEntry]:
    """Return the newest entries of the Debian changelog below ``root``, newest first."""
    for candidate in ("changelog.Debian.gz", "changelog.gz"):
        file = root / "usr/share/doc" / name / candidate
        if file.is_file() and not file.is_symlink():
            text = gzip.decompress(file.read_bytes()).decode("utf-8", "replace")
            entries = _parse_changelog(text)
            if entries:
                return entries
    return []


def _parse_changelog(text: str) -> list[ChangelogEntry]:
    entries: list[ChangelogEntry] = []
    version, lines = "", list[str]()
    for line in text.splitlines():
        if head := _CHANGELOG_HEAD.match(line):
            version, lines = head["version"], []
        elif foot := _CHANGELOG_FOOT.match(line):
            try:
                when = parsedate_to_datetime(foot["when"].strip())
            except ValueError:
                break
            if entries and when > entries[-1].when:
                break  # RPM insists on falling dates; Debian's merges of branches do not
            entries.append(ChangelogEntry(foot["who"], when, version, tuple(lines)))
            if len(entries) == CHANGELOG_ENTRIES:
                break
        elif line.startswith("  ") and line.strip() and len(lines) < CHANGELOG_LINES:
            lines.append("- " + line[4:] if line.startswith("  * ") else "  " + line.strip())
    return entries


def read_license(root: Path, name: str) -> str | None:
    """Return the licence names of a machine-readable copyright file (DEP-5), else None."""
    file = root / "usr/share/doc" / name / "copyright"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    if not re.match(r"Format(-Specification)?:", text):
        return None
    names: list[str] = []
    for stanza in re.split(r"\n\s*\n", text):
        if re.search(r"(?m)^Files:", stanza) and (found := re.search(r"(?m)^License:(.*)$", stanza)):
            names.append(" ".join(found[1].split()))
    unique = sorted(filter(None, dict.fromkeys(names)))
    return " and ".join(f"({n})" if " " in n else n for n in unique) or None
