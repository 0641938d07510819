"""Read the packages in an image's RPM database, without rpm's library.

It is SQLite, Berkeley DB or ndb, as its first bytes say. The image may be foreign, so its database is read in memory,
an SQLite one read-only by sqlite alone. Each package is a header as rpm writes it: two counts, an index of (tag, type,
offset, count), and the data
(https://rpm.org/documentation/manual/format_header.html).
"""

from __future__ import annotations

import itertools
import sqlite3
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import VerificationError
from pipeline.model.header import ChangelogEntry
from pipeline.model.package import Nevra
from pipeline.packages import bdb_reader, ndb_reader
from pipeline.packages.changelog import newest_entries

DATABASE_LIMIT = 256 << 20
"""Bytes of a database; a full desktop has 100 MiB."""

_PACKAGES_LIMIT = 100_000
_TIME_LIMIT = 20.0
_STEPS = 100_000
"""Seconds that reading may take (it takes a tenth of one), checked after so many steps of sqlite's virtual machine."""

_INDEX_LIMIT = 1 << 16
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
    return tuple(sorted(_each(database, _installed), key=lambda package: str(package.nevra)))


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
    """Call `read` with each package's header and return the results."""
    try:
        return [read(blob) for blob in itertools.islice(_headers(database), _PACKAGES_LIMIT)]
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
        connection.deserialize(database)
        # A table of this name may be a view that never ends.
        deadline = time.monotonic() + _TIME_LIMIT
        connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        for (blob,) in connection.execute("SELECT blob FROM Packages LIMIT ?", (_PACKAGES_LIMIT,)):
            yield bytes(blob)


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


def _installed(blob: bytes) -> Installed:
    tags = _tags(blob)
    said = _strings(blob, tags, _LICENSE)
    return Installed(_nevra(blob, tags), tuple(_licenses(blob, tags)), said[0] if said else "")


def _licenses(blob: bytes, tags: _Tags) -> list[str]:
    flags, folders = _integers(blob, tags, _FILE_FLAGS), _strings(blob, tags, _DIRECTORY_NAMES)
    names, indexes = _strings(blob, tags, _BASE_NAMES), _integers(blob, tags, _DIRECTORY_INDEXES)
    states = _bytes(blob, tags, _FILE_STATES) or [_NORMAL_STATE] * len(names)
    return [
        folders[folder] + name
        for name, folder, flag, state in zip(names, indexes, flags, states, strict=True)
        if flag & _LICENSE_FLAG and state == _NORMAL_STATE
    ]


def _strings(blob: bytes, tags: _Tags, tag: int) -> list[str]:
    if tag not in tags:
        return []
    kind, offset, count = tags[tag]
    if kind not in (_STRING, _STRING_ARRAY, _I18N) or count > len(blob):
        raise ValueError(f"tag {tag} has type {kind}")
    found = []
    for _ in range(count):
        end = blob.index(b"\0", offset)
        found.append(blob[offset:end].decode(errors="replace"))
        offset = end + 1
    return found


def _integers(blob: bytes, tags: _Tags, tag: int) -> list[int]:
    if tag not in tags:
        return []
    kind, offset, count = tags[tag]
    if kind != _INT32:
        raise ValueError(f"tag {tag} has type {kind}")
    return list(struct.unpack_from(f">{count}I", blob, offset))


def _bytes(blob: bytes, tags: _Tags, tag: int) -> list[int]:
    if tag not in tags:
        return []
    kind, offset, count = tags[tag]
    if kind != _CHAR or offset + count > len(blob):
        raise ValueError(f"tag {tag} has type {kind}")
    return list(blob[offset : offset + count])
