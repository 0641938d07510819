"""Write a reproducible RPM database of installed packages, by `rpmdb --importdb`.

Each package's header gets what an installation adds to it (file states, install time, colour, transaction
number) and `rpmdb --importdb` loads them, so `rpm -qa`, `rpm -Va` and scanners see what rpm itself would have
written, and files that were left out are recorded as not installed. Two things are corrected: SQLite's record of the
library version that wrote the file, which differs between machines, and the write-ahead log mode, in which a database
on a read-only file system cannot be read. That is an `rpmdb.sqlite`; for a platform whose rpm reads another format it
is written again in that one, and read back.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.errors import BuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Nevra
from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.packages.macro_paths import macro_path
from pipeline.packages.rpm_header import open_header
from pipeline.packages.rpm_library import rpm
from pipeline.packages.rpmdb_conversion import convert_database
from pipeline.packages.rpmdb_reader import read_headers
from pipeline.process import CommandFailed, Completed, run
from pipeline.store import failing_at

_SQLITE = DATABASE_FILES[DatabaseFormat.SQLITE]

_SECONDS = 300.0
_MAGIC = b"\x8e\xad\xe8\x01\x00\x00\x00\x00"
_COUNTS = struct.Struct(">II")
_ENTRY = struct.Struct(">iIiI")
_CHAR = 1
"""RPM_CHAR_TYPE, that of RPMTAG_FILESTATES."""
_CHANGES, _VALID_FOR, _WRITER = 24, 92, 96
"""Offsets in SQLite's header: change counter, the change that the writer's version is valid for, the writer's
version (https://www.sqlite.org/fileformat.html#the_database_header)."""
_WRITER_VERSION = 3_034_001
"""SQLite's version that is recorded: that of the oldest platform whose rpm uses SQLite (EL9)."""

_BACKENDS = {DatabaseFormat.SQLITE: "sqlite", DatabaseFormat.BDB: "bdb_ro", DatabaseFormat.NDB: "ndb"}
"""rpm's name of the backend that reads each format; Debian's rpm knows the second since 4.17, the third since 4.19."""
_NO_BACKEND = b"using dummy database"
"""rpm's warning that it was built without one (dbi.c); it then reads an empty database."""

_REASONS = {
    "database or disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "unable to open database file": errno.EIO,  # in a folder that was just made, and can be written to
    "readonly database": errno.EROFS,
    "out of memory": errno.ENOMEM,
    os.strerror(errno.ENOSPC): errno.ENOSPC,
    os.strerror(errno.EDQUOT): errno.EDQUOT,
    os.strerror(errno.EIO): errno.EIO,
    os.strerror(errno.EROFS): errno.EROFS,
    os.strerror(errno.EACCES): errno.EACCES,
    os.strerror(errno.EMFILE): errno.EMFILE,
}
"""Error numbers by the messages of SQLite (sqlite3_errstr) and of the C library.
SQLite reports a short write, also by a quota, as a full disk; rpm adds "No such file or directory" to most messages,
which means nothing."""

_FULL = 1 << 20
"""Bytes: with fewer left, SQLite's "disk I/O error" means that its shared memory could not grow."""


@dataclass(frozen=True, slots=True)
class DatabaseRecord:
    """One installed package, as the database records it.

    Its RPM file and NEVRA, the state of each of its files (RPMFILE_STATE_*, in the header's order), the time of its
    installation, the colour of the transaction.
    """

    rpm: Path
    nevra: Nevra
    states: tuple[int, ...]
    install_time: int
    install_color: int = 0


def write_database(
    folder: Path, records: Sequence[DatabaseRecord], form: DatabaseFormat = DatabaseFormat.SQLITE
) -> None:
    """Write the database's files into `folder`, an empty directory, in the format `form`.

    The order of `records` is the order in which rpm lists them (newest last; by a hash in Berkeley DB); equal records
    in equal order give equal bytes, in SQLite under the same SQLite.

    Raises BuildError `rpm-database` if rpm refuses a header or the database is not read back as it was written,
    VerificationError `package-damaged`, and OSError with the database's path where the machine refuses: a full disk, a
    quota, a defect.
    """
    headers = folder / "headers"
    with failing_at(headers), headers.open("wb") as file:
        for record in records:
            file.write(_installed(record))
    database = folder / _SQLITE
    with headers.open("rb") as file:
        imported = _rpmdb(folder, _BACKENDS[DatabaseFormat.SQLITE], "--importdb", stdin=file)
    headers.unlink()
    # Also where rpmdb exited with 0: for a header that it could not write whole it only prints a message.
    _demand_written(imported.stderr.decode(errors="replace"), database)
    if imported.status != 0:
        raise BuildError("rpm-database", f"rpm cannot write its database: {CommandFailed(imported)}")
    with failing_at(database):
        try:
            _normalise(database, len(records))
            files = {} if form is DatabaseFormat.SQLITE else convert_database(database, form)
        except sqlite3.Error as error:
            _demand_written(str(error), database)
            raise BuildError("rpm-database", f"SQLite cannot read the RPM database {database}: {error}") from error
    if files:
        _replace(folder, database, form, files)
    for other in folder.iterdir():
        if other.name not in (files or (_SQLITE,)):
            other.unlink()
        else:
            other.chmod(0o644)


def _rpmdb(folder: Path, backend: str, *words: str, stdin: IO[bytes] | None = None) -> Completed:
    # SQLite's temporary files: beside the database, because a machine may have no /tmp that can be written to.
    environment = {"TMPDIR": str(folder.absolute())}
    with macro_path(folder) as (handle, path):
        command = ["rpmdb", "--define", f"_dbpath {path}", "--define", f"_db_backend {backend}", *words]
        return run(command, stdin=stdin, timeout=_SECONDS, check=False, environment=environment, pass_fds=(handle,))


def _replace(folder: Path, sqlite: Path, form: DatabaseFormat, files: Mapping[str, bytes]) -> None:
    """Write the files in place of SQLite's, and read their headers back.

    This machine's rpm reads them as well, if it was built with a reader of that format.
    """
    written = sorted(read_headers(sqlite.read_bytes()))
    sqlite.unlink()
    for name, data in files.items():
        with failing_at(folder / name):
            (folder / name).write_bytes(data)
    exported = _rpmdb(folder, _BACKENDS[form], "--exportdb")
    readings = [read_headers((folder / DATABASE_FILES[form]).read_bytes())]
    if _NO_BACKEND not in exported.stderr:
        if exported.status != 0:
            raise BuildError("rpm-database", f"rpm cannot read the database back: {CommandFailed(exported)}")
        readings.append(tuple(_exported(exported.stdout)))
    for found in readings:
        if sorted(found) != written:
            raise BuildError("rpm-database", f"of {len(written)} headers {len(found)} were read back, or others")


def _exported(stream: bytes) -> Iterator[bytes]:
    """Yield the headers that `rpmdb --exportdb` wrote."""
    start = 0
    while start < len(stream):
        start += len(_MAGIC)
        entries, stored = _COUNTS.unpack_from(stream, start)
        end = start + _COUNTS.size + entries * _ENTRY.size + stored
        yield stream[start:end]
        start = end


def _demand_written(said: str, database: Path) -> None:
    """Raise the operating system's error that messages of SQLite or rpm report, if any.

    rpmdb's exit status is only the number of headers that failed.
    """
    number = next((number for words, number in _REASONS.items() if words in said), None)
    if number is None:
        return
    if number == errno.EIO:
        free = os.statvfs(database.parent)
        if free.f_bavail * free.f_frsize < _FULL:
            number = errno.ENOSPC
    raise OSError(number, os.strerror(number), str(database))


def _installed(record: DatabaseRecord) -> bytes:
    """Return the header as rpm has it after an installation, ready to be imported."""
    header = open_header(record.rpm)
    header[rpm.RPMTAG_INSTALLTIME] = record.install_time
    header[rpm.RPMTAG_INSTALLCOLOR] = record.install_color
    header[rpm.RPMTAG_INSTALLTID] = record.install_time
    exported: bytes = header.unload()
    return _MAGIC + (_with_states(exported, bytes(record.states)) if record.states else exported)


def _with_states(header: bytes, states: bytes) -> bytes:
    """Return an exported header with one more entry, the files' states.

    rpm's Python bindings cannot add values of this type, so the bytes are edited: an entry at the end of the index, its
    data at the end of the data, the counts increased.
    """
    entries, stored = _COUNTS.unpack_from(header)
    index = _COUNTS.size
    data = index + entries * _ENTRY.size
    return b"".join(
        (
            _COUNTS.pack(entries + 1, stored + len(states)),
            header[index:data],
            _ENTRY.pack(rpm.RPMTAG_FILESTATES, _CHAR, stored, len(states)),
            header[data:],
            states,
        )
    )


def _normalise(database: Path, expected: int) -> None:
    """Make the database one compact, reproducible file that is readable on a read-only mount."""
    connection = sqlite3.connect(database)
    try:
        (count,) = connection.execute("SELECT count(*) FROM Packages").fetchone()
        if count != expected:
            raise BuildError("rpm-database", f"rpm imported {count} of {expected} headers")
        (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        if mode != "delete":
            # SQLite does not raise here, but returns the resulting mode. One with a log cannot be read in an image.
            raise sqlite3.OperationalError("disk I/O error")
        connection.execute("VACUUM")
    finally:
        connection.close()
    with database.open("r+b") as file:
        for offset, value in ((_CHANGES, 1), (_VALID_FOR, 1), (_WRITER, _WRITER_VERSION)):
            file.seek(offset)
            file.write(struct.pack(">I", value))
