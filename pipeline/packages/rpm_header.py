"""Read an RPM's header, by rpm's library, into a `PackageHeader`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.digest import Digest
from pipeline.model.header import (
    Dependency,
    FileFlag,
    FileRecord,
    PackageHeader,
    Scriptlet,
    ScriptletPhase,
    Trigger,
    TriggerKind,
)
from pipeline.model.package import NO_SOURCE_ARCH, SOURCE_ARCH, Nevra
from pipeline.packages.package_signature import _PGP_SHA256
from pipeline.packages.rpm_file_layout import package_damaged
from pipeline.packages.rpm_library import header_from_handle, rpm

_SCRIPT_EXPAND = 1 << 0
_SCRIPT_QUERY_FORMAT = 1 << 1
"""RPMSCRIPT_FLAG_* (rpm, lib/rpmscript.h)."""

_SHELL = ("/bin/sh",)
_NO_DEVICE = (0, 0)
_DEFAULT_PRIORITY = 1_000_000

_MOMENTS = (
    (ScriptletPhase.PRETRANS, "PRETRANS"),
    (ScriptletPhase.PRE, "PREIN"),
    (ScriptletPhase.POST, "POSTIN"),
    (ScriptletPhase.POSTTRANS, "POSTTRANS"),
)
_TRIGGERS = (
    ("TRIGGER", rpm.RPMSENSE_TRIGGERPREIN, TriggerKind.PREIN),
    ("TRIGGER", rpm.RPMSENSE_TRIGGERIN, TriggerKind.IN),
    ("FILETRIGGER", rpm.RPMSENSE_TRIGGERIN, TriggerKind.FILE_IN),
    ("TRANSFILETRIGGER", rpm.RPMSENSE_TRIGGERIN, TriggerKind.TRANSACTION_FILE_IN),
)


def read_header(path: Path, checksum: Digest) -> PackageHeader:
    """Read the header of the RPM at `path`, whose sha256 is `checksum`.

    The header's own digests are checked, the signature is not (see `verify_package`). Raises VerificationError
    `package-damaged`.
    """
    header = open_header(path)
    if header[rpm.RPMTAG_SOURCEPACKAGE]:
        raise package_damaged(path, "it is a source package, which cannot be installed")
    with consistent(path):
        return _read(header, checksum)


@contextlib.contextmanager
def consistent(path: Path) -> Iterator[None]:
    """Raise VerificationError `package-damaged` where a header's tags are inconsistent.

    rpm checks that a header's tags are well-formed, not that they are consistent: lists of equal length, indexes within
    range, valid times and modes.
    """
    try:
        yield
    except (rpm.error, ValueError, TypeError, LookupError, OverflowError, SystemError) as error:
        raise package_damaged(path, f"its header is inconsistent: {str(error)[:200]}") from error


def _read(header: rpm.hdr, checksum: Digest) -> PackageHeader:
    flags = header[rpm.RPMTAG_FILEFLAGS]
    return PackageHeader(
        nevra=_nevra(header),
        checksum=checksum,
        files=tuple(_files(header, flags)),
        scriptlets=tuple(_scriptlets(header)),
        triggers=tuple(_triggers(header)),
        provides=_dependencies(header, "PROVIDE"),
        requires=_dependencies(header, "REQUIRE"),
        build_time=header[rpm.RPMTAG_BUILDTIME] or 0,
        license=header[rpm.RPMTAG_LICENSE] or "",
        summary=header[rpm.RPMTAG_SUMMARY] or "",
        vendor=header[rpm.RPMTAG_VENDOR] or "",
        url=header[rpm.RPMTAG_URL] or "",
        source_rpm=header[rpm.RPMTAG_SOURCERPM] or "",
        prefixes=tuple(header[rpm.RPMTAG_PREFIXES] or ()),
        conflicts=_dependencies(header, "CONFLICT"),
        obsoletes=_dependencies(header, "OBSOLETE"),
        recommends=_dependencies(header, "RECOMMEND"),
        supplements=_dependencies(header, "SUPPLEMENT"),
    )


def read_source_nevra(path: Path) -> Nevra:
    """Read the NEVRA of the source RPM at `path`.

    Its architecture is `src` or `nosrc` as in its file's name; the signature is not looked at. Raises VerificationError
    `package-damaged`, also if it is not a source package.
    """
    header = open_header(path)
    if not header[rpm.RPMTAG_SOURCEPACKAGE]:
        raise package_damaged(path, "it is not a source package")
    with consistent(path):
        lacking = header[rpm.RPMTAG_NOSOURCE] or header[rpm.RPMTAG_NOPATCH]
        return replace(_nevra(header), arch=NO_SOURCE_ARCH if lacking else SOURCE_ARCH)


def open_header(path: Path) -> rpm.hdr:
    """Open rpm's own header object. Raises VerificationError `package-damaged`."""
    transaction = rpm.TransactionSet("/", 0)
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return header_from_handle(transaction, handle, path)
    except rpm.error as error:
        raise package_damaged(path, f"rpm cannot read its header: {error}") from error
    finally:
        os.close(handle)


def _nevra(header: rpm.hdr) -> Nevra:
    if not all(header[tag] for tag in (rpm.RPMTAG_NAME, rpm.RPMTAG_VERSION, rpm.RPMTAG_RELEASE, rpm.RPMTAG_ARCH)):
        raise ValueError("it lacks a name, version, release or architecture")
    return Nevra(
        header[rpm.RPMTAG_NAME],
        header[rpm.RPMTAG_EPOCH] or 0,
        header[rpm.RPMTAG_VERSION],
        header[rpm.RPMTAG_RELEASE],
        header[rpm.RPMTAG_ARCH],
    )


def _files(header: rpm.hdr, flags: Sequence[int]) -> Iterator[FileRecord]:
    names = file_names(header)
    count = len(names)
    modes = header[rpm.RPMTAG_FILEMODES]
    users, groups = header[rpm.RPMTAG_FILEUSERNAME], header[rpm.RPMTAG_FILEGROUPNAME]
    sizes, times = header[rpm.RPMTAG_LONGFILESIZES], header[rpm.RPMTAG_FILEMTIMES]
    digests = header[rpm.RPMTAG_FILEDIGESTS] if header[rpm.RPMTAG_FILEDIGESTALGO] == _PGP_SHA256 else [""] * count
    links = header[rpm.RPMTAG_FILELINKTOS]
    colors = header[rpm.RPMTAG_FILECOLORS] or [0] * count
    devices = header[rpm.RPMTAG_FILERDEVS]
    capabilities = header[rpm.RPMTAG_FILECAPS] or [""] * count
    languages = header[rpm.RPMTAG_FILELANGS] or [""] * count
    verify = header[rpm.RPMTAG_FILEVERIFYFLAGS]
    inodes = inode_numbers(header)
    names_of: dict[int, int] = {}
    if len(set(inodes)) < len(inodes):
        names_of = {inodes[index]: len(places) for index, places in hard_links(header).items()}
    else:
        deque(zip(inodes, modes, flags, strict=True), maxlen=0)  # Demands equal lengths, as `hard_links` does.
    said = {value: FileFlag(value) for value in {*flags}}
    # Some hundred thousand records are kept while an image is built: what files have in common is one object.
    same: dict[object, Any] = {}
    for i in range(count):
        mode = same.setdefault(value := modes[i] & 0xFFFF, value)
        regular = stat.S_ISREG(mode)
        yield FileRecord(
            path=names[i],
            mode=mode,
            user=sys.intern(users[i]),
            group=sys.intern(groups[i]),
            size=sizes[i],
            mtime=same.setdefault(times[i], times[i]),
            digest=Digest(digests[i]) if regular and digests[i] else None,
            link=links[i] if stat.S_ISLNK(mode) else "",
            flags=said[flags[i]],
            color=colors[i],
            inode=inodes[i],
            nlink=names_of.get(inodes[i], 1) if regular else 1,
            rdev=(os.major(devices[i]), os.minor(devices[i])) if devices[i] else _NO_DEVICE,
            capabilities=capabilities[i],
            languages=tuple(part for part in languages[i].split("|") if part) if languages[i] else (),
            verify=same.setdefault(verify[i], verify[i]),
        )


def file_names(header: rpm.hdr) -> list[str]:
    """Return the path of each file, joined from the header's folders and names.

    rpm's RPMTAG_FILENAMES assumes that the folders are a list and that each file's is in it: a header that says
    otherwise ends the process. Raises ValueError, TypeError or LookupError if the header is inconsistent.
    """
    bases = _list(header[rpm.RPMTAG_BASENAMES])
    if not bases:
        return _list(header[rpm.RPMTAG_OLDFILENAMES])
    folders = _list(header[rpm.RPMTAG_DIRNAMES])
    places = _list(header[rpm.RPMTAG_DIRINDEXES])
    return [folders[place] + base for place, base in zip(places, bases, strict=True)]


def inode_numbers(header: rpm.hdr) -> list[int]:
    """Return a number per file; files with equal numbers are hard links of one another."""
    numbers: dict[tuple[int, int], int] = {}
    return [
        numbers.setdefault(key, len(numbers))
        for key in zip(header[rpm.RPMTAG_FILEDEVICES], header[rpm.RPMTAG_FILEINODES], strict=True)
    ]


def hard_links(header: rpm.hdr) -> dict[int, tuple[int, ...]]:
    """Return the places of all names of each regular file, by the place of each name.

    Ghosts are left out. Raises ValueError if names of one file have different sizes, which rpmbuild writes nowhere:
    limits would apply to one of the sizes, and the content could have the other.
    """
    by_inode: dict[int, list[int]] = {}
    modes, flags = header[rpm.RPMTAG_FILEMODES], header[rpm.RPMTAG_FILEFLAGS]
    ghost = int(FileFlag.GHOST)  # Integers are compared with integers: flags of enumerations take ten times as long.
    for index, (inode, mode, flag) in enumerate(zip(inode_numbers(header), modes, flags, strict=True)):
        if stat.S_ISREG(mode & 0xFFFF) and not flag & ghost:
            by_inode.setdefault(inode, []).append(index)
    names, sizes = file_names(header), header[rpm.RPMTAG_LONGFILESIZES]
    for first, *others in by_inode.values():
        for index in others:
            if sizes[index] != sizes[first]:
                raise ValueError(f"{names[index]} is {names[first]} by a hard link, and they have different sizes")
    return {index: tuple(places) for places in by_inode.values() for index in places}


def _scriptlets(header: rpm.hdr) -> Iterator[Scriptlet]:
    for moment, name in _MOMENTS:
        program = tuple(_list(header[getattr(rpm, f"RPMTAG_{name}PROG")]))
        body = header[getattr(rpm, f"RPMTAG_{name}")]
        if program or body:
            flags = header[getattr(rpm, f"RPMTAG_{name}FLAGS")] or 0
            yield Scriptlet(
                moment=moment,
                interpreter=program or _SHELL,
                body=_body(header, body or "", flags),
                expand=bool(flags & _SCRIPT_EXPAND),
            )


def _triggers(header: rpm.hdr) -> Iterator[Trigger]:
    for prefix, sense, kind in _TRIGGERS:
        tags = {
            part: _list(header[getattr(rpm, f"RPMTAG_{prefix}{part}")])
            for part in ("NAME", "FLAGS", "VERSION", "INDEX", "SCRIPTS", "SCRIPTPROG", "SCRIPTFLAGS")
        }
        priorities = _list(header[getattr(rpm, f"RPMTAG_{prefix}PRIORITIES")]) if prefix != "TRIGGER" else []
        for index, program in enumerate(tags["SCRIPTPROG"]):
            on = tuple(
                Dependency(name, flags & 0xF, version)
                for name, flags, version, script in zip(
                    tags["NAME"], tags["FLAGS"], tags["VERSION"], tags["INDEX"], strict=True
                )
                if script == index and flags & sense
            )
            if not on:
                continue
            flags = tags["SCRIPTFLAGS"][index] if tags["SCRIPTFLAGS"] else 0
            yield Trigger(
                kind=kind,
                interpreter=(program,),
                body=_body(header, tags["SCRIPTS"][index], flags),
                on=on,
                priority=priorities[index] if priorities else _DEFAULT_PRIORITY,
            )


def _body(header: rpm.hdr, body: str, flags: int) -> str:
    """Return the script's body; with `-q` it is expanded as a query format on the header."""
    formatted: str = header.sprintf(body) if flags & _SCRIPT_QUERY_FORMAT else body
    return formatted


def _dependencies(header: rpm.hdr, prefix: str) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(name, flags, version)
        for name, flags, version in zip(
            header[getattr(rpm, f"RPMTAG_{prefix}NAME")],
            header[getattr(rpm, f"RPMTAG_{prefix}FLAGS")],
            header[getattr(rpm, f"RPMTAG_{prefix}VERSION")],
            strict=True,
        )
    )


def _list(value: object) -> list:  # type: ignore[type-arg]
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
