"""Reading an image's RPM database, which may be anybody's, without rpm."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import VerificationError
from pipeline.packages import bdb_writer, ndb_writer, read_installed, rpmdb_reader
from tests.support.examples import examples


def header(**fields: object) -> bytes:
    """A header as rpm writes it. Fields by number of their tag, `t1000=...`: text, texts, numbers or bytes."""
    index, data = b"", b""
    for name, value in fields.items():
        tag = int(name[1:])
        if isinstance(value, str):
            kind, count, piece = 6, 1, value.encode() + b"\0"
        elif isinstance(value, bytes):
            kind, count, piece = 1, len(value), value
        elif isinstance(value, list) and value and isinstance(value[0], int):
            kind, count, piece = 4, len(value), struct.pack(f">{len(value)}I", *value)
        else:
            assert isinstance(value, list)
            kind, count, piece = 8, len(value), b"".join(text.encode() + b"\0" for text in value)
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += piece
    return struct.pack(">II", len(fields), len(data)) + index + data


def database(*blobs: bytes, table: str = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)") -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(table)
        for blob in blobs:
            connection.execute("INSERT INTO Packages (blob) VALUES (?)", (blob,))
        connection.commit()
        return connection.serialize()


APP = header(
    t1000="app",
    t1001="1.0",
    t1002="2",
    t1003=[7],
    t1022="x86_64",
    t1029=bytes([0, 0, 1]),
    t1037=[0, 1 << 7, 1 << 7],
    t1116=[0, 1, 1],
    t1117=["app", "COPYING", "LEFT-OUT"],
    t1118=["/usr/bin/", "/usr/share/licenses/app/"],
)
KEY = header(t1000="gpg-pubkey", t1001="1", t1002="2")

WRITERS: tuple[Callable[[list[bytes]], bytes], ...] = (
    lambda blobs: database(*blobs),
    lambda blobs: bdb_writer.write_bdb_packages(dict(enumerate(blobs, start=1))),
    lambda blobs: ndb_writer.write_ndb_packages(dict(enumerate(blobs, start=1))),
)
"""Databases of all formats."""


def test_packages_and_the_licences_that_were_installed() -> None:
    app, key = read_installed(database(APP, KEY))
    assert str(app.nevra) == "app-7:1.0-2.x86_64"
    assert app.licenses == ("/usr/share/licenses/app/COPYING",)
    assert (key.nevra.name, key.nevra.arch, key.licenses) == ("gpg-pubkey", "", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no database",
        database(APP)[:-3000],
        database(table="CREATE TABLE Other (a)"),
        database(b""),
        database(APP[:40]),
        database(header(t1000="a", t1001="1")),
        database(struct.pack(">II", 1 << 30, 0)),
        database(header(t1000=[1], t1001="1", t1002="1")),
    ],
)
def test_a_damaged_database_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="RPM database"):
        read_installed(data)


def test_a_database_of_more_packages_than_are_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was left out would be one that no rule is held against."""
    monkeypatch.setattr(rpmdb_reader, "_PACKAGES_LIMIT", 3)
    for write in WRITERS:
        assert len(read_installed(write([APP, KEY, APP]))) == 3
        with pytest.raises(VerificationError, match="more than 3 packages"):
            read_installed(write([APP, KEY, APP, KEY]))


def licensed(folders: list[str], names: list[str]) -> bytes:
    """A package with licence files of these names, all in the first folder."""
    flags, indexes = [1 << 7] * len(names), [0] * len(names)
    return header(t1000="a", t1001="1", t1002="1", t1037=flags, t1116=indexes, t1117=names, t1118=folders)


def test_a_licence_file_has_a_path_that_could_be_installed() -> None:
    """One folder's name of a megabyte with a thousand files is a gigabyte of paths."""
    (package,) = read_installed(database(licensed(["/" + "d" * 4000 + "/"], ["n" * 94])))
    assert len(package.licenses[0]) == 4096
    with pytest.raises(VerificationError, match="path has 4,097 characters"):
        read_installed(database(licensed(["/" + "d" * 4000 + "/"], ["n" * 95])))


def test_the_paths_of_all_licence_files_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpmdb_reader, "_LICENSE_PATHS_LIMIT", 100)
    package = licensed(["/usr/"], ["12345"] * 5)
    assert [len(one.licenses) for one in read_installed(database(package, package))] == [5, 5]
    for blobs in ([licensed(["/usr/"], ["12345"] * 11)], [package, package, package]):
        with pytest.raises(VerificationError, match="more than 100 characters"):
            read_installed(database(*blobs))


def test_items_of_a_tag_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpmdb_reader, "_ITEMS_LIMIT", 3)
    read_installed(database(APP))
    for tag in ({"t1029": bytes(4)}, {"t1037": [0] * 4}, {"t1117": [""] * 4}):
        with pytest.raises(VerificationError, match="4 items"):
            read_installed(database(header(t1000="a", t1001="1", t1002="1", **tag)))


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("zeroblob(1 << 29)", "too big"),
        ("1 << 29", "no blob"),
        ("(SELECT blob FROM Stored) FROM generated", "larger than the file"),
    ],
)
def test_a_view_gives_no_more_than_the_file_has(value: str, refused: str) -> None:
    numbers = "WITH RECURSIVE generated (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM generated)"
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE Stored (blob)")
        connection.execute("INSERT INTO Stored VALUES (?)", (APP,))
        connection.execute(f"CREATE VIEW Packages (blob) AS {numbers} SELECT {value}")
        connection.commit()
        stored = connection.serialize()
    with pytest.raises(VerificationError, match=refused):
        read_installed(stored)


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, len(APP) - 1), st.binary(min_size=1, max_size=8))
def test_whatever_a_header_says_it_is_read_or_refused(offset: int, junk: bytes) -> None:
    blob = APP[:offset] + junk + APP[offset + len(junk) :]
    with contextlib.suppress(VerificationError):
        read_installed(database(blob))
