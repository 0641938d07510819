"""A Debian package becomes the spec of an RPM: names, dependencies, file attributes.

The libraries' requirements and provides come from RPM's own ELF generator; what Debian says in
``Depends`` beyond libraries is carried over by name. Everything particular to one package stands
in ``catalogue.toml``, ``scriptlets/`` and ``overlay/``, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalogue import Conversion, Update
from closure import DebianPackage
from deb import ChangelogEntry, Control, Member, read_changelog, read_control, read_license
from debian_version import Evr, to_evr
from payload import Payload

RELEASE_SUFFIX = "local1"
UPDATE_SUFFIX = "local2"
PACKAGER = "relbuild development mirror <mirror@relbuild.invalid>"
# An update is built an hour after what it updates: later, and in the order of the changelog.
UPDATE_DELAY_SECONDS = 3600
LICENSE_TAG_LIMIT = 400

_NEVER_PACKAGED = (
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/doc-base/*",
    "/usr/share/lintian",
    "/usr/share/bug",
    "/usr/share/doc-base",
    "/etc/init.d*",
    "/etc/apparmor.d*",
    "/usr/share/apport*",
    "/etc/ufw*",
    "/usr/share/man/*/man*/*.undocumented",
)
# Interpreters that no image from here shall need; the scripts that want them stay, unrunnable,
# as in any minimal installation that leaves perl out.
_EXCLUDED_REQUIRES = (
    r"^(perl[(].*|/usr/bin/perl.*|/usr/bin/env|/bin/env|/usr/bin/python.*|/bin/(csh|ksh|dash)|/usr/bin/dtrace|"
    r"/usr/lib/init/.*|/lib/init/.*|/usr/bin/make|/usr/bin/debconf.*)$"
)
# Shared objects that programs load by path must not satisfy anybody's requirement.
_PRIVATE_LIBRARIES = "^/usr/lib/(mysql|postgresql|nginx)/.*$"
_DOCUMENT_DIRECTORIES = ("/usr/share/man/", "/usr/share/info/", "/usr/share/postgresql/17/man/")
_LOCALE = re.compile(r"^/usr/share/locale/([A-Za-z_@.]+)/")
_TRANSLATED_MAN = re.compile(r"^/usr/share/man/([a-z]{2,3}(?:_[A-Z]{2})?(?:\.[^/]+)?)/")


@dataclass(frozen=True, slots=True)
class Origin:
    """The chosen Debian packages: index entries and files by name, and the RPM that each goes into."""

    packages: Mapping[str, DebianPackage]
    debs: Mapping[str, Path]
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Parts:
    """The folder that holds what conversions add: scriptlets, overlays, the top directories."""

    folder: Path

    def scriptlets(self, name: str) -> Path:
        """Return where the scriptlets of package ``name`` stand, if it has any."""
        return self.folder / "scriptlets" / f"{name}.spec"

    def overlay(self, name: str) -> Path:
        """Return the folder of files that are put over the payload of package ``name``."""
        return self.folder / "overlay" / name

    def of_filesystem(self) -> frozenset[str]:
        """Return the paths that the package ``filesystem`` owns, and which nobody else lists."""
        directories = (self.folder / "filesystem.directories").read_text().splitlines()
        symlinks = (self.folder / "filesystem.symlinks").read_text().splitlines()
        return frozenset([line.split()[1] for line in directories] + [line.split()[0] for line in symlinks])


@dataclass(frozen=True, slots=True)
class PreparedSpec:
    """A spec file's text, and the build time that its header shall have."""

    text: str
    build_time: int


def prepare(
    conversion: Conversion, origin: Origin, parts: Parts, folder: Path, update: Update | None = None
) -> PreparedSpec:
    """Unpack the debs of ``conversion`` into ``folder`` and return the spec that packages it."""
    payload = Payload(folder)
    controls = [read_control(origin.debs[deb]) for deb in conversion.debs]
    for deb, control in zip(conversion.debs, controls, strict=True):
        payload.conffiles |= control.conffiles
        payload.add_deb(origin.debs[deb], (*_NEVER_PACKAGED, *conversion.drop), parts.of_filesystem())
    first, control = conversion.debs[0], controls[0]
    changelog = read_changelog(folder, first)
    time = int(changelog[0].when.timestamp()) if changelog else payload.newest()
    payload.drop_dangling_documentation()
    payload.add_overlay(parts.overlay(conversion.name), time)
    for path, target in conversion.links.items():
        payload.add_symlink(path, target, time)
    if update is not None:
        time += UPDATE_DELAY_SECONDS
        payload.append(update.path, update.text, time)
    for path in conversion.ghosts:
        payload.add_ghost(path, time)
    payload.settle_directories(conversion.directories, time)
    evr = to_evr(control.version, UPDATE_SUFFIX if update else RELEASE_SUFFIX)
    scriptlets = parts.scriptlets(conversion.name)
    sections = [
        _preamble(conversion, control, evr, _license(conversion, folder)),
        _dependencies(conversion, origin, payload),
        f"%description\n{_escape(control.description)}\n",
        "%install\nrmdir '%{buildroot}'\nmv '%{mirror_payload}' '%{buildroot}'\n",
        scriptlets.read_text(encoding="utf-8") if scriptlets.exists() else "",
        "%files\n" + "\n".join(_file_lines(conversion, payload)) + "\n",
        "%changelog\n" + _changelog(changelog, update, evr),
    ]
    return PreparedSpec("\n".join(sections), time)


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _license(conversion: Conversion, folder: Path) -> str:
    """Return what Debian's machine-readable copyright file says, else where to read it."""
    first = conversion.debs[0]
    license_tag = conversion.license or read_license(folder, first)
    if not license_tag or len(license_tag) > LICENSE_TAG_LIMIT:
        return f"See /usr/share/doc/{first}/copyright"
    return license_tag


def _preamble(conversion: Conversion, control: Control, evr: Evr, license_tag: str) -> str:
    tags = [
        f"%global __requires_exclude {_EXCLUDED_REQUIRES}",
        f"%global __provides_exclude_from {_PRIVATE_LIBRARIES}",
        f"Name: {conversion.name}",
        *([f"Epoch: {evr.epoch}"] if evr.epoch else []),
        f"Version: {evr.version}",
        f"Release: {evr.release}",
        f"Summary: {_escape(control.summary)}",
        f"License: {_escape(license_tag)}",
        *([f"URL: {_escape(control.homepage)}"] if control.homepage else []),
    ]
    return "\n".join(tags)


def _dependencies(conversion: Conversion, origin: Origin, payload: Payload) -> str:
    tags = []
    for tag, values in (
        ("Requires", sorted({*_mapped_requires(conversion, origin), *conversion.requires})),
        ("Requires(pre)", conversion.requires_pre),
        ("Requires(post)", conversion.requires_post),
        ("Provides", (*conversion.provides, *payload.sysusers_provides())),
        ("Obsoletes", conversion.obsoletes),
        ("Conflicts", conversion.conflicts),
        ("Recommends", conversion.recommends),
        ("Suggests", conversion.suggests),
    ):
        tags += [f"{tag}: {value}\n" for value in values]
    return "".join(tags)


def _mapped_requires(conversion: Conversion, origin: Origin) -> set[str]:
    """Carry over what Debian depends on besides libraries, which the ELF generator sees itself."""
    requires = set()
    for deb in conversion.debs:
        for clause in origin.packages[deb].depends:
            present = [origin.packages[r.name] for r in clause if r.name in origin.packages]
            if present and not _is_library(present[0]):
                requires.add(origin.names[present[0].name])
    return requires - {conversion.name, *conversion.without_requires}


def _is_library(package: DebianPackage) -> bool:
    """Tell shared libraries, whose names end in their version, from data and plugin packages."""
    return package.section == "libs" and bool(re.fullmatch(r"lib.*\d(t64)?", package.name))


def _file_lines(conversion: Conversion, payload: Payload) -> list[str]:
    lines = []
    for path, member in sorted(payload.members.items()):
        marks = _marks(member, path in payload.conffiles)
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
    if member.kind != "directory" and (found := _LOCALE.match(path) or _TRANSLATED_MAN.match(path)):
        marks.append(f"%lang({found[1].split('.')[0].split('@')[0]})")
    if conffile and member.kind == "file":
        marks.append("%config(noreplace)")
    elif member.kind == "file" and path.startswith("/usr/share/doc/"):
        marks.append("%license" if path.endswith("/copyright") else "%doc")
    elif member.kind != "directory" and path.startswith(_DOCUMENT_DIRECTORIES):
        marks.append("%doc")
    return marks


def _quoted(path: str) -> str:
    """Spell a path so that rpmbuild takes it as one word without macros."""
    return f'"{_escape(path)}"'


def _changelog(entries: list[ChangelogEntry], update: Update | None, evr: Evr) -> str:
    blocks = []
    if update is not None and entries:
        title = f"{_escape(update.title)} ({update.advisory})"
        when = f"{entries[0].when:%a %b %d %Y}"
        blocks.append(f"* {when} {PACKAGER} - {evr.version}-{evr.release}\n- {title}")
    for entry in entries:
        spelled = to_evr(entry.version, RELEASE_SUFFIX)
        head = f"* {entry.when:%a %b %d %Y} {_escape(entry.who)} - {spelled.version}-{spelled.release}"
        body = "\n".join(_escape(line) for line in entry.lines) or "- no details"
        blocks.append(f"{head}\n{body}")
    return "\n\n".join(blocks) + "\n"
