"""Data classes for an RPM header: files, scriptlets, triggers, dependencies, changelog.

Read by `pipeline.packages.rpm_header`.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Nevra


class FileFlag(IntFlag):
    """RPMTAG_FILEFLAGS (rpm, include/rpm/rpmfiles.h)."""

    CONFIG = 1 << 0
    DOC = 1 << 1
    MISSING_OK = 1 << 3
    NO_REPLACE = 1 << 4
    GHOST = 1 << 6
    LICENSE = 1 << 7
    README = 1 << 8
    PUBKEY = 1 << 11
    ARTIFACT = 1 << 12


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a header, in the header's order.

    `path` is absolute, as the header has it (before usr-merge), bytes that are no UTF-8 surrogate-escaped.
    `mode` is the whole st_mode. `digest` is the sha256 of a regular file's content, None for other kinds,
    ghosts, empty digests. `link` is a symlink's target. `rdev` is (major, minor). `color` is 0, 1 (32 bit ELF)
    or 2 (64 bit ELF). `inode` and `nlink` tell hard links apart within the package. `capabilities` is the text
    form (`cap_net_raw=ep`). `languages` are the locales that it is for. `verify` is RPMTAG_FILEVERIFYFLAGS.
    """

    path: str
    mode: int
    user: str
    group: str
    size: int
    mtime: int
    digest: Digest | None
    link: str = ""
    flags: FileFlag = FileFlag(0)
    color: int = 0
    inode: int = 0
    nlink: int = 1
    rdev: tuple[int, int] = (0, 0)
    capabilities: str = ""
    languages: tuple[str, ...] = ()
    verify: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Dependency:
    """A name with an optional comparison of versions.

    `flags` are RPMSENSE_* bits (LESS 2, GREATER 4, EQUAL 8, …).
    """

    name: str
    flags: int = 0
    evr: str = ""


class ScriptletPhase(StrEnum):
    """The slots of scriptlets in a first installation."""

    PRETRANS = "pretrans"
    PRE = "pre"
    POST = "post"
    POSTTRANS = "posttrans"


@dataclass(frozen=True, slots=True)
class Scriptlet:
    """One scriptlet of a package.

    `interpreter` is the program with its arguments, `("<lua>",)` for rpm's own Lua. `body` is empty for `-p PROGRAM`
    alone. `expand`: macros in the body are expanded at run time (`-e`).
    """

    moment: ScriptletPhase
    interpreter: tuple[str, ...]
    body: str
    expand: bool = False


class TriggerKind(StrEnum):
    """Kinds of triggers that a first installation sets off."""

    PREIN = "triggerprein"
    IN = "triggerin"
    FILE_IN = "filetriggerin"
    TRANSACTION_FILE_IN = "transfiletriggerin"


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger script with the packages or path prefixes that set it off.

    Packages for PREIN and IN, path prefixes for FILE_IN and TRANSACTION_FILE_IN. `priority` orders file triggers,
    higher first (default 1000000).
    """

    kind: TriggerKind
    interpreter: tuple[str, ...]
    body: str
    on: tuple[Dependency, ...]
    priority: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ChangelogEntry:
    """One entry of a changelog.

    `time` is seconds since the epoch (rpm: noon of the day), `name` who and usually which EVR, `text` the lines.
    """

    time: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PackageHeader:
    """One package's header.

    `checksum` is the sha256 of the RPM file it was read from (a blob in the store).
    """

    nevra: Nevra
    checksum: Digest
    files: tuple[FileRecord, ...]
    scriptlets: tuple[Scriptlet, ...]
    triggers: tuple[Trigger, ...]
    provides: tuple[Dependency, ...]
    requires: tuple[Dependency, ...]
    build_time: int
    license: str = ""
    summary: str = ""
    vendor: str = ""
    url: str = ""
    source_rpm: str = ""
    prefixes: tuple[str, ...] = ()
    conflicts: tuple[Dependency, ...] = ()
    obsoletes: tuple[Dependency, ...] = ()
    recommends: tuple[Dependency, ...] = ()
    supplements: tuple[Dependency, ...] = ()
