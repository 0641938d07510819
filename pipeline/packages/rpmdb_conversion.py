"""Convert rpm's SQLite database to a format that another platform's rpm reads.

What the indexes hold is taken from the SQLite file, which rpm itself wrote: rules such as those for prerequisites and
triggers have been the same in rpm since 4.11 (`tag2index` in rpmdb.c), only where they are stored differs. So an
image's own rpm finds all indexes, and makes none, which it could not in a read-only image.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import assert_never

from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.packages import bdb_writer, ndb_writer
from pipeline.packages.rpm_library import rpm

_INDEXES = (
    *("Name", "Basenames", "Group", "Requirename", "Providename", "Conflictname", "Obsoletename", "Triggername"),
    *("Dirnames", "Installtid", "Sigmd5", "Sha1header", "Filetriggername", "Transfiletriggername"),
    *("Recommendname", "Suggestname", "Supplementname", "Enhancename"),
)
"""The indexes of rpm 4.13 to 6.1, by the name of their table, file or tag; rpm 4.11 has the first twelve."""

_INDEX_FILE = "Index.db"
_ENTRIES = 'SELECT CAST(key AS BLOB), hnum, idx FROM "{}" ORDER BY rowid'

_Entries = Sequence[tuple[bytes, int, int]]


def database_file_names(form: DatabaseFormat) -> tuple[str, ...]:
    """Return the names of a database's files in a format, that with the headers first."""
    match form:
        case DatabaseFormat.BDB:
            return (DATABASE_FILES[form], *_INDEXES)
        case DatabaseFormat.NDB:
            return (DATABASE_FILES[form], _INDEX_FILE)
        case DatabaseFormat.SQLITE:
            return (DATABASE_FILES[form],)
        case other:
            assert_never(other)


def convert_database(sqlite: Path, form: DatabaseFormat) -> dict[str, bytes]:
    """Return the files, by name, of a database with the content of an `rpmdb.sqlite`.

    Raises sqlite3.Error.
    """
    headers, indexes = _content(sqlite)
    packages = DATABASE_FILES[form]
    match form:
        case DatabaseFormat.BDB:
            files = {name: bdb_writer.write_bdb_index(name, _with_keys(entries)) for name, entries in indexes.items()}
            return {packages: bdb_writer.write_bdb_packages(headers), **files}
        case DatabaseFormat.NDB:
            tags = {int(getattr(rpm, f"RPMTAG_{name.upper()}")): entries for name, entries in indexes.items()}
            index = ndb_writer.write_ndb_indexes(tags, ndb_writer.ndb_generation(headers))
            return {packages: ndb_writer.write_ndb_packages(headers), _INDEX_FILE: index}
        case DatabaseFormat.SQLITE:
            return {packages: sqlite.read_bytes()}
        case other:
            assert_never(other)


def _with_keys(entries: _Entries) -> _Entries:
    """Return the entries with a zero byte for an empty key.

    So rpm stores one in Berkeley DB ("/" fixup in db3.c).
    """
    return [(key or b"\0", number, position) for key, number, position in entries]


def _content(path: Path) -> tuple[Mapping[int, bytes], Mapping[str, _Entries]]:
    """Return the headers by number, and the entries of each index.

    They are in the order in which rpm added them.
    """
    with closing(sqlite3.connect(path)) as connection:
        headers = dict(connection.execute("SELECT hnum, blob FROM Packages ORDER BY hnum"))
        queries = {name: _ENTRIES.format(name) for name in _INDEXES}
        indexes = {name: connection.execute(query).fetchall() for name, query in queries.items()}
    return headers, indexes
