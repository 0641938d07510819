"""Reading an image's RPM database, which may be anybody's, without rpm."""

from __future__ import annotations

import contextlib
import sqlite3
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import VerificationError
from pipeline.packages import read_installed
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
    connection = sqlite3.connect(":memory:")
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


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, len(APP) - 1), st.binary(min_size=1, max_size=8))
def test_whatever_a_header_says_it_is_read_or_refused(offset: int, junk: bytes) -> None:
    blob = APP[:offset] + junk + APP[offset + len(junk) :]
    with contextlib.suppress(VerificationError):
        read_installed(database(blob))
