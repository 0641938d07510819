"""Signature headers as anybody may write them: what is read of them before anything is verified."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from pipeline.openpgp_packets import read_packets
from pipeline.packages import signature_header
from pipeline.packages.rpm_file_layout import RpmFileLayout
from pipeline.packages.signature_header import SIGNATURE_BYTES_MOST, SIGNATURES_MOST, PackageSignature, read_signatures
from tests.support.journal import Journal
from tests.support.openpgp import V6_SIGNATURE
from tests.support.signed_rpms import OPENPGP, PGP, RSA_HEADER

BINARY, STRINGS = 7, 8
LEAD = 96
Entry = tuple[int, int, int, int]
"""Tag, type, offset and count."""


def read(folder: Path, entries: Sequence[Entry], store: bytes) -> tuple[PackageSignature, ...]:
    path = folder / "it.rpm"
    head = struct.pack(">8sII", b"\x8e\xad\xe8\x01", len(entries), len(store))
    head += b"".join(struct.pack(">iIiI", *entry) for entry in entries)
    path.write_bytes(bytes(LEAD) + head + store)
    end = path.stat().st_size
    return read_signatures(path, RpmFileLayout(end, end))


def refusal(folder: Path, entries: Sequence[Entry], store: bytes) -> str:
    with pytest.raises(VerificationError) as caught:
        read(folder, entries, store)
    assert caught.value.code == "package-damaged"
    return str(caught.value)


def test_equal_signatures_are_one_and_are_parsed_once(tmp_path: Path, journal: Journal) -> None:
    texts = base64.b64encode(V6_SIGNATURE) + b"\0" + base64.encodebytes(V6_SIGNATURE) + b"\0"
    size = len(V6_SIGNATURE)
    entries = [(RSA_HEADER, BINARY, 0, size), (PGP, BINARY, 0, size), (OPENPGP, STRINGS, size, 2)]
    journal.stand_in(signature_header, read_packets, read_packets)
    found = read(tmp_path, entries, V6_SIGNATURE + texts)
    assert [(one.packet, one.whole, one.listed) for one in found] == [
        (V6_SIGNATURE, False, False),
        (V6_SIGNATURE, True, False),
    ]
    assert len(journal.of(read_packets)) == 2


@pytest.mark.parametrize("listed", [False, True])
def test_equal_signatures_count_so_that_none_costs_time_without_end(tmp_path: Path, listed: bool) -> None:
    text = base64.b64encode(V6_SIGNATURE) + b"\0"
    one = (OPENPGP, STRINGS, 0, 1) if listed else (PGP, BINARY, 0, len(V6_SIGNATURE))
    store = text if listed else V6_SIGNATURE
    assert len(read(tmp_path, [one] * SIGNATURES_MOST, store)) == 1
    assert "more than 16 signatures" in refusal(tmp_path, [one] * (SIGNATURES_MOST + 1), store)


def test_a_large_signature_is_refused_before_it_is_decoded(tmp_path: Path, journal: Journal) -> None:
    journal.stand_in(signature_header, signature_header._decoded, gives=b"")
    blanks = b"AA " * SIGNATURE_BYTES_MOST
    assert "more than 64 KiB" in refusal(tmp_path, [(OPENPGP, STRINGS, 0, 1)], blanks + b"\0")
    assert "more than 64 KiB" in refusal(tmp_path, [(PGP, BINARY, 0, SIGNATURE_BYTES_MOST + 1)], blanks)
    assert journal.of(signature_header._decoded) == []


def test_what_decodes_to_a_large_signature_is_refused(tmp_path: Path) -> None:
    text = base64.b64encode(bytes(SIGNATURE_BYTES_MOST + 1))
    assert "more than 64 KiB" in refusal(tmp_path, [(OPENPGP, STRINGS, 0, 1)], text + b"\0")
