"""A Debian package becomes the spec of an RPM: names, dependencies, file attributes.

The libraries' requirements and provides come from RPM's own ELF generator; what Debian says in
``Depends`` beyond libraries is carried over by name. Everything particular to one package stands
in ``catalogue.toml``, ``scriptlets/`` and ``overlay/``, not here.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from catalogue import Conversion, Update
from closure import DebianPackage
from deb import ChangelogEntry, Control, Member, read_changelog, read_control, read_license, unpack
from debian_version import to_evr

RELEASE_SUFFIX = "local1"
UPDATE_SUFFIX = "local2"
LICENSE_TAG_LIMIT = 400

_NEVER_PACKAGED = (
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/doc-base/*",
    "/usr/share/lintian",
    "/usr/share/bug",
    "/usr/share/doc-base",
    "/etc/init.d*",
    "/etc/default",
    "/etc/apparmor.d*",
    "/usr/share/apport*",
    "/etc/ufw*",
    "/usr/share/man/*/man*/*.undocumented",
)
# Interpreters that no image from here shall need; the scripts that want them stay, unrunnable,
# as in any minimal installation that leaves perl out.
_EXCLUDED_REQUIRES = (
    r"^(perl\(.*|/usr/bin/perl.*|/usr/bin/env|/bin/env|/usr/bin/python.*|/bin/(csh|ksh|dash)|/usr/bin/dtrace|"
    r"/usr/lib/init/.*|/lib/init/.*|/usr/bin/make|/usr/bin/debconf.*)$"
)
_LOCALE = re.compile(r"^/usr/share/locale/([A-Za-z_@.]+)/")
_TRANSLATED_MAN = re.compile(r"^/usr/share/man/([a-z]{2,3}(?:_[A-Z]{2})?(?:\.[^/]+)?)/")


@dataclass(frozen=True, slots=True)
class PreparedSpec:
    """A spec file's text and what rpmbuild must be told with it."""

    text: str
    build_time: int


def prepare(
    conversion: Conversion,
    packages: Mapping[str, DebianPackage],
    debs: Mapping[str, Path],
    names: Mapping[str, str],
    directories: frozenset[str],
    parts: Path,
    payload: Path,
    update: Update | None = None,
) -> PreparedSpec:
    """Unpack the debs of ``conversion`` into ``payload`` and return the spec that packages it.

    ``names`` maps every chosen Debian package to its RPM name; ``directories`` are those of the
    ``filesystem`` package, which nobody else lists; ``parts`` is the folder with the scriptlets
    and overlays.
    """
    members: dict[str, Member] = {}
    control: Control | None = None
    conffiles: set[str] = set()
    drop = (*_NEVER_PACKAGED, *conversion.drop)
    for deb_name in conversion.debs:
        found = read_control(debs[deb_name])
        control = control or found
        conffiles |= found.conffiles
        for member in unpack(
            debs[deb_name], payload, lambda p: not any(fnmatch.fnmatchcase(p, d) for d in drop)
        ):
            if member.path not in directories:
                members.setdefault(member.path, member)
    assert control is not None, f"{conversion.name} names no deb"
    first = conversion.debs[0]
    changelog = read_changelog(payload, first)
    newest = max((m.mtime for m in members.values()), default=0)
    build_time = int(changelog[0].when.timestamp()) if changelog else newest
    _drop_dangling_documentation(members, payload)
    _add_overlay(parts / "overlay" / conversion.name, members, payload, conffiles, build_time)
    for path, target in conversion.links.items():
        _add_link(members, payload, path, target, build_time)
    if update is not None:
        build_time = update.issued_epoch
        _apply_update(update, members, payload, conffiles)
    license_tag = conversion.license or read_license(payload, first)
    if not license_tag or len(license_tag) > LICENSE_TAG_LIMIT:
        license_tag = f"See /usr/share/doc/{first}/copyright"
    evr = to_evr(control.version, UPDATE_SUFFIX if update else RELEASE_SUFFIX)
    requires = _mapped_requires(conversion, packages, names)
    fragment = parts / "scriptlets" / f"{conversion.name}.spec"
    sections = [
        _preamble(conversion, control, evr.epoch, evr.version, evr.release, license_tag, requires),
        f"%description\n{_escape(control.description)}\n",
        "%install\nrmdir '%{buildroot}'\nmv '%{mirror_payload}' '%{buildroot}'\n",
        fragment.read_text() if fragment.exists() else "",
        "%files\n" + "\n".join(_file_lines(conversion, members, conffiles)) + "\n",
        "%changelog\n" + _changelog(changelog, update, f"{evr.version}-{evr.release}"),
    ]
    return PreparedSpec("\n".join(sections), build_time)


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _preamble(
    conversion: Conversion,
    control: Control,
    epoch: int | None,
    version: str,
    release: str,
    license_tag: str,
    requires: Iterable[str],
) -> str:
    tags = [
        f"Name: {conversion.name}",
        *([f"Epoch: {epoch}"] if epoch else []),
        f"Version: {version}",
        f"Release: {release}",
        f"Summary: {_escape(control.summary)}",
        f"License: {_escape(license_tag)}",
        f"URL: {_escape(control.homepage) or 'https://www.debian.org/'}",
    ]
    for tag, values in (
        ("Requires", sorted({*requires, *conversion.requires})),
        ("Requires(pre)", conversion.requires_pre),
        ("Requires(post)", conversion.requires_post),
        ("Provides", conversion.provides),
        ("Obsoletes", conversion.obsoletes),
        ("Conflicts", conversion.conflicts),
        ("Recommends", conversion.recommends),
        ("Suggests", conversion.suggests),
    ):
        tags += [f"{tag}: {value}" for value in values]
    return (
        f"%global __requires_exclude {_EXCLUDED_REQUIRES}\n"
        # Shared objects that programs load by path must not satisfy anybody's requirement.
        "%global __provides_exclude_from ^(/usr/lib/mysql|/usr/lib/postgresql|/usr/lib/nginx)/.*$\n"
        + "\n".join(tags)
        + "\n"
    )


def _mapped_requires(
    conversion: Conversion, packages: Mapping[str, DebianPackage], names: Mapping[str, str]
) -> set[str]:
    """Carry over what Debian depends on besides libraries, which the ELF generator sees itself."""
    requires = set()
    for deb_name in conversion.debs:
        for clause in packages[deb_name].depends:
            for relation in clause:
                target = packages.get(relation.name)
                if target is None:
                    continue
                library = target.section == "libs" and target.name.startswith("lib")
                if library and names[target.name] == target.name.replace("t64", ""):
                    break
                if names[target.name] != conversion.name and not library:
                    requires.add(names[target.name])
                break
    return requires - set(conversion.without_requires)


def _drop_dangling_documentation(members: dict[str, Member], payload: Path) -> None:
    """Remove doc folders that are symlinks into a package which does not exist here."""
    for path, member in list(members.items()):
        file = payload / path[1:]
        if path.startswith("/usr/share/doc/") and member.kind == "symlink" and not file.exists():
            file.unlink()
            del members[path]


def _add_overlay(
    overlay: Path,
    members: dict[str, Member],
    payload: Path,
    conffiles: set[str],
    build_time: int,
) -> None:
    for source in sorted(overlay.rglob("*")) if overlay.is_dir() else ():
        if not source.is_file():
            continue
        path = "/" + source.relative_to(overlay).as_posix()
        target = payload / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
        target.chmod(mode)
        _set_time(target, build_time)
        members[path] = Member(path, "file", mode, "root", "root", build_time)
        if path.startswith("/etc/"):
            conffiles.add(path)


def _add_link(
    members: dict[str, Member], payload: Path, path: str, target: str, build_time: int
) -> None:
    link = payload / path[1:]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    _set_time(link, build_time)
    members[path] = Member(path, "symlink", 0o777, "root", "root", build_time)


def _apply_update(
    update: Update, members: dict[str, Member], payload: Path, conffiles: set[str]
) -> None:
    """Make the small, real difference in content that an update of a package has."""
    target = payload / update.path[1:]
    before = target.read_text() if target.exists() else ""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(before + update.text)
    _set_time(target, update.issued_epoch)
    if update.path not in members:
        target.chmod(0o644)
        members[update.path] = Member(
            update.path, "file", 0o644, "root", "root", update.issued_epoch
        )
        if update.path.startswith("/etc/"):
            conffiles.add(update.path)


def _set_time(path: Path, seconds: int) -> None:
    import os

    os.utime(path, (seconds, seconds), follow_symlinks=False)


def _file_lines(
    conversion: Conversion, members: Mapping[str, Member], conffiles: set[str]
) -> list[str]:
    lines = []
    for path, member in sorted(members.items()):
        marks = _marks(member, path in conffiles)
        mode = "-" if member.kind == "symlink" else f"{conversion.modes.get(path, member.mode):04o}"
        user, group = conversion.owners.get(path, f"{member.user}:{member.group}").split(":")
        if path in conversion.caps:
            marks.append(f"%caps({conversion.caps[path]})")
        lines.append(" ".join([*marks, f"%attr({mode},{user},{group})", _quoted(path)]))
    for path, attributes in conversion.directories.items():
        lines.append(f"%dir %attr({attributes}) {_quoted(path)}")
    for path, attributes in conversion.ghosts.items():
        lines.append(f"%ghost %attr({attributes}) {_quoted(path)}")
    return lines


def _marks(member: Member, conffile: bool) -> list[str]:
    path = member.path
    marks = []
    if member.kind == "directory":
        marks.append("%dir")
    if member.kind != "directory" and (
        found := _LOCALE.match(path) or _TRANSLATED_MAN.match(path)
    ):
        marks.append(f"%lang({found[1].split('.')[0].split('@')[0]})")
    if conffile and member.kind == "file":
        marks.append("%config(noreplace)")
    elif member.kind == "file" and path.startswith("/usr/share/doc/"):
        marks.append("%license" if path.endswith("/copyright") else "%doc")
    elif member.kind != "directory" and path.startswith(("/usr/share/man/", "/usr/share/info/")):
        marks.append("%doc")
    return marks


def _quoted(path: str) -> str:
    """Spell a path so that rpmbuild takes it literally: no macro, no glob, no word splitting."""
    literal = re.sub(r"([\\*?\[\]{}])", r"\\\1", path)
    return f'"{_escape(literal)}"'


def _changelog(entries: Iterable[ChangelogEntry], update: Update | None, evr: str) -> str:
    blocks = []
    if update is not None:
        blocks.append(
            f"* {update.issued:%a %b %d %Y} {PACKAGER} - {evr}\n- {_escape(update.title)}"
            f" ({update.advisory})"
        )
    for entry in entries:
        spelled = to_evr(entry.version, RELEASE_SUFFIX)
        body = "\n".join(_escape(line) for line in entry.lines) or "- no details"
        blocks.append(
            f"* {entry.when:%a %b %d %Y} {_escape(entry.who)} - "
            f"{spelled.version}-{spelled.release}\n{body}"
        )
    return "\n\n".join(blocks) + "\n"


PACKAGER = "relbuild development mirror <mirror@relbuild.invalid>"
