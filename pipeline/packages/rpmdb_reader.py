"""Read the packages in an image's RPM database, without rpm's library.

It is SQLite, Berkeley DB or ndb, as its first bytes say. The image may be foreign, so its database is read in memory,
an SQLite one read-only by sqlite alone. Each package is a header as rpm writes it: two counts, an index of (tag, type,
offset, count), and the data
(https://rpm.org/documentation/manual/format_header.html).
"""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from typing import TypeVar

from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import ChangelogEntry
from pipeline.model.package import Nevra
from pipeline.packages import bdb_reader, ndb_reader
from pipeline.packages.changelog import newest_entries

DATABASE_LIMIT = 256 << 20
"""Bytes of a database; a full desktop has 100 MiB."""

_PACKAGES_LIMIT = 100_000
"""Packages of a database; a full desktop has a few thousand. More are refused: one left out is one not checked."""
_TIME_LIMIT = 20.0
_STEPS = 100_000
"""Seconds that reading may take (it takes a tenth of one), checked after so many steps of sqlite's virtual machine."""

_INDEX_LIMIT = 1 << 16
_ITEMS_LIMIT = 1 << 20
"""Items of a tag, one for each file or changelog entry; the largest packages have a hundred thousand files."""
_PATH_LIMIT = 4096
"""Characters of a path: PATH_MAX of Linux, so no longer one was installed."""
_LICENSE_PATHS_LIMIT = 16 << 20
"""Characters of all licence files' paths; a full desktop's have half a million. One folder's name stands in many."""

_NAME, _VERSION, _RELEASE, _EPOCH, _LICENSE, _ARCH = 1000, 1001, 1002, 1003, 1014, 1022
_CHANGELOG_TIME, _CHANGELOG_NAME, _CHANGELOG_TEXT = 1080, 1081, 1082
_FILE_STATES, _FILE_FLAGS, _DIRECTORY_INDEXES, _BASE_NAMES, _DIRECTORY_NAMES = 1029, 1037, 1116, 1117, 1118
_CHAR, _INT32, _STRING, _STRING_ARRAY, _I18N = 1, 4, 6, 8, 9
_LICENSE_FLAG = 1 << 7
_NORMAL_STATE = 0

_Tags = Mapping[int, tuple[int, int, int]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed package with its licence and its licence files.

    `licenses` are the installed files that the package marks as its licence; `license` is the licence in its header, ""
    if it has none.
    """

    nevra: Nevra
    licenses: tuple[str, ...]
    license: str = ""


def read_installed(database: bytes) -> tuple[Installed, ...]:
    """Read all packages in the bytes of a database file, sorted by NEVRA.

    Raises VerificationError `rpmdb-damaged`.
    """
    room = _LICENSE_PATHS_LIMIT

    def read(blob: bytes) -> Installed:
        nonlocal room
        package = _installed(blob, room)
        room -= sum(map(len, package.licenses))
        return package

    return tuple(sorted(_each(database, read), key=lambda package: str(package.nevra)))


def installed_changelogs(database: bytes, wanted: Collection[Nevra]) -> Mapping[Nevra, tuple[ChangelogEntry, ...]]:
    """Read the newest changelog entries of those packages that are `wanted`.

    They are bounded as by `read_changelog`; an image's headers may lack them. Raises VerificationError `rpmdb-damaged`.
    """

    def read(blob: bytes) -> tuple[Nevra, tuple[ChangelogEntry, ...]]:
        tags = _tags(blob)
        nevra = _nevra(blob, tags)
        if nevra not in wanted:
            return nevra, ()
        names, texts = (_strings(blob, tags, tag) for tag in (_CHANGELOG_NAME, _CHANGELOG_TEXT))
        return nevra, newest_entries(_integers(blob, tags, _CHANGELOG_TIME), names, texts)

    return {nevra: entries for nevra, entries in _each(database, read) if nevra in wanted}


def read_headers(database: bytes) -> tuple[bytes, ...]:
    """Read all headers in the bytes of a database file, as they are.

    Raises VerificationError `rpmdb-damaged`.
    """
    return tuple(_each(database, lambda blob: blob))


def _each(database: bytes, read: Callable[[bytes], _T]) -> list[_T]:
    """Call `read` with each package's header and return the results.

    All headers are in the file, so together they are not larger; a view of sqlite may give one many times.
    """
    found: list[_T] = []
    room = len(database)
    try:
        for blob in _headers(database):
            room -= len(blob)
            if room < 0:
                raise ValueError("its headers are larger than the file")
            if len(found) == _PACKAGES_LIMIT:
                raise ValueError(f"it has more than {_PACKAGES_LIMIT:,} packages")
            found.append(read(blob))
        return found
    except (sqlite3.Error, struct.error, LookupError, ValueError, TypeError, MemoryError) as error:
        raise VerificationError("rpmdb-damaged", f"the image's RPM database cannot be read: {error}") from error


def _headers(database: bytes) -> Iterator[bytes]:
    if bdb_reader.is_bdb(database):
        return bdb_reader.read_bdb_headers(database)
    if ndb_reader.is_ndb(database):
        return ndb_reader.read_ndb_headers(database)
    return _sqlite_headers(database)


def _sqlite_headers(database: bytes) -> Iterator[bytes]:
    with closing(sqlite3.connect(":memory:")) as connection:
        # No value is longer than the file that has it, whatever a view makes.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, len(database))
        connection.deserialize(database)
        # A table of this name may be a view that never ends.
        deadline = time.monotonic() + _TIME_LIMIT
        connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        for (blob,) in connection.execute("SELECT blob FROM Packages LIMIT ?", (_PACKAGES_LIMIT + 1,)):
            if not isinstance(blob, bytes):
                raise TypeError("a header is no blob")
            yield blob


def _tags(blob: bytes) -> _Tags:
    count, _size = struct.unpack_from(">II", blob)
    if count > _INDEX_LIMIT:
        raise ValueError(f"a header has {count} entries")
    tags: dict[int, tuple[int, int, int]] = {}
    start = 8 + 16 * count
    for index in range(count):
        tag, kind, offset, items = struct.unpack_from(">IIII", blob, 8 + 16 * index)
        tags[tag] = (kind, start + offset, items)
    return tags


def _nevra(blob: bytes, tags: _Tags) -> Nevra:
    name, version, release = (_strings(blob, tags, tag)[0] for tag in (_NAME, _VERSION, _RELEASE))
    epoch, arch = _integers(blob, tags, _EPOCH), _strings(blob, tags, _ARCH)
    # An imported key is stored as a package without architecture.
    return Nevra(name, epoch[0] if epoch else 0, version, release, arch[0] if arch else "")


def _installed(blob: bytes, room: int) -> Installed:
    tags = _tags(blob)
    said = _strings(blob, tags, _LICENSE)
    return Installed(_nevra(blob, tags), tuple(_licenses(blob, tags, room)), said[0] if said else "")


def _licenses(blob: bytes, tags: _Tags, room: int) -> list[str]:
    """Return the paths of a package's licence files, of `room` characters at most together."""
    flags, folders = _integers(blob, tags, _FILE_FLAGS), _strings(blob, tags, _DIRECTORY_NAMES)
    names, indexes = _strings(blob, tags, _BASE_NAMES), _integers(blob, tags, _DIRECTORY_INDEXES)
    states = _bytes(blob, tags, _FILE_STATES) or bytes([_NORMAL_STATE]) * len(names)
    found: list[str] = []
    for name, folder, flag, state in zip(names, indexes, flags, states, strict=True):
        if not flag & _LICENSE_FLAG or state != _NORMAL_STATE:
            continue
        length = len(folders[folder]) + len(name)
        room -= length
        if length > _PATH_LIMIT:
            raise ValueError(f"a licence file's path has {length:,} characters")
        if room < 0:
            raise ValueError(f"its licence files' paths have more than {_LICENSE_PATHS_LIMIT:,} characters")
        found.append(folders[folder] + name)
    return found


def _strings(blob: bytes, tags: _Tags, tag: int) -> list[str]:
    offset, count = _located(tags, tag, (_STRING, _STRING_ARRAY, _I18N))
    found = []
    for _ in range(count):
        end = blob.index(b"\0", offset)
        found.append(blob[offset:end].decode(errors="replace"))
        offset = end + 1
    return found


def _integers(blob: bytes, tags: _Tags, tag: int) -> list[int]:
    offset, count = _located(tags, tag, (_INT32,))
    return list(struct.unpack_from(f">{count}I", blob, offset))


def _bytes(blob: bytes, tags: _Tags, tag: int) -> bytes:
    offset, count = _located(tags, tag, (_CHAR,))
    if offset + count > len(blob):
        raise ValueError(f"tag {tag} is longer than its header")
    return blob[offset : offset + count]


def _located(tags: _Tags, tag: int, kinds: Collection[int]) -> tuple[int, int]:
    """Return the offset and count of a tag's items, of one of these types; none without it."""
    if tag not in tags:
        return 0, 0
    kind, offset, count = tags[tag]
    if kind not in kinds or count > _ITEMS_LIMIT:
        raise ValueError(f"tag {tag} has type {kind}, {count:,} items")
    return offset, count
