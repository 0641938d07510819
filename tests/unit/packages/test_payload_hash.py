"""The digest of a payload that is computed while its package passes by in pieces."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from pipeline.packages import PayloadHash
from pipeline.packages.rpm_file_layout import read_rpm_layout

PAYLOAD = bytes(range(256)) * 3
MAGIC = b"\x8e\xad\xe8\x01\0\0\0\0"


def header(data: bytes, region: int) -> bytes:
    """A header with one entry, its region, and `data` before the region's trailer."""
    trailer = struct.pack(">iIiI", region, 7, -16, 16)
    entry = struct.pack(">iIiI", region, 7, len(data), 16)
    return MAGIC + struct.pack(">II", 1, len(data) + 16) + entry + data + trailer


def file_of(signatures: bytes = b"x" * 5, payload: bytes = PAYLOAD) -> bytes:
    front = b"\xed\xab\xee\xdb" + bytes(92) + header(signatures, 62)
    return front + bytes(-len(front) % 8) + header(b"y" * 70, 63) + payload


def passed(data: bytes, size: int) -> PayloadHash:
    found = PayloadHash()
    for at in range(0, len(data), size):
        found.update(memoryview(data)[at : at + size])
    return found


@pytest.mark.parametrize("size", [1, 7, 16, 95, 96, 97, 112, 300, 1 << 20])
@pytest.mark.parametrize("signatures", [0, 3, 8, 500])
def test_the_payload_is_hashed_however_the_file_is_cut(tmp_path: Path, size: int, signatures: int) -> None:
    data = file_of(b"s" * signatures)
    path = tmp_path / "it.rpm"
    path.write_bytes(data)
    start = read_rpm_layout(path).payload
    assert data[start:] == PAYLOAD
    assert passed(data, size).payload_digest(start) == hashlib.sha256(PAYLOAD).hexdigest()
    assert passed(data, size).payload_digest(start + 1) is None


def test_an_empty_payload_has_a_digest() -> None:
    data = file_of(payload=b"")
    assert passed(data, 50).payload_digest(len(data)) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no package" * 50,
        file_of()[:100],
        file_of()[:120],
        file_of()[:96] + MAGIC + struct.pack(">II", 1 << 16, 16) + bytes(5000),
        file_of()[:96] + MAGIC + struct.pack(">II", 1, (256 << 20) + 1) + bytes(5000),
    ],
)
@pytest.mark.parametrize("size", [1, 64, 10_000])
def test_what_is_no_package_has_no_payload(data: bytes, size: int) -> None:
    found = passed(data, size)
    assert all(found.payload_digest(start) is None for start in (-1, 0, found.start, len(data)))
