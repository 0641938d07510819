"""The verdict on one signature: what GnuPG or rpm calls good, and does not count all the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.model.signing_key import PackageTrust
from pipeline.openpgp_packets import Signature, read_packets, read_signature
from pipeline.packages import package_signature
from pipeline.packages.package_signature import _judge, _Verdict
from pipeline.packages.rpm_file_layout import RpmFileLayout
from pipeline.packages.signature_header import PackageSignature
from tests.support.journal import Journal
from tests.support.openpgp import KeyMaker, key_maker
from tests.support.signed_rpms import PGP, RSA_HEADER

LAYOUT = RpmFileLayout(0, 0)
GOOD = Signature(4, 0, 1, 8, 0, "A" * 16)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyMaker]:
    with key_maker(tmp_path_factory.mktemp("gpg") / "one") as one:
        yield one


@pytest.mark.parametrize("text", [False, True])
def test_a_signature_of_text_does_not_count_because_it_leaves_out_line_ends(
    maker: KeyMaker, tmp_path: Path, text: bool
) -> None:
    path = tmp_path / "it.rpm"
    packet = maker.sign(b"A\nB\n", text=text)
    (one,) = read_packets(packet)
    said = read_signature(one.body)
    assert said.kind == int(text)
    signature = PackageSignature(packet, True, False, PGP, said)
    verdicts = []
    for data in (b"A\nB\n", b"A\r\nB\n"):
        path.write_bytes(data)
        verdicts.append(_judge(path, LAYOUT, signature, PackageTrust((maker.public,))))
    assert verdicts == ([_Verdict.UNSUPPORTED] * 2 if text else [_Verdict.GOOD, _Verdict.BAD])


@pytest.mark.parametrize("kind", [1, 2, 0x13, 0x40])
def test_a_signature_of_another_type_than_binary_counts_nowhere(journal: Journal, tmp_path: Path, kind: int) -> None:
    journal.stand_in(package_signature, package_signature._ask_rpm, gives=_Verdict.GOOD)
    journal.stand_in(package_signature, package_signature._ask_gpgv, gives=_Verdict.GOOD)
    for number, verdict in ((0, _Verdict.GOOD), (kind, _Verdict.UNSUPPORTED)):
        said = Signature(4, number, 1, 8, 0, "A" * 16)
        for whole in (False, True):
            signature = PackageSignature(b"", whole, False, PGP if whole else RSA_HEADER, said)
            assert _judge(tmp_path, LAYOUT, signature, PackageTrust()) is verdict


def test_what_rpm_calls_good_does_not_count_where_its_hash_cannot_be_told(journal: Journal, tmp_path: Path) -> None:
    journal.stand_in(package_signature, package_signature._ask_rpm, gives=_Verdict.GOOD)
    for said, verdict in ((GOOD, _Verdict.GOOD), (None, _Verdict.UNSUPPORTED)):
        for listed in (False, True):
            signature = PackageSignature(b"", False, listed, RSA_HEADER, said)
            assert _judge(tmp_path, LAYOUT, signature, PackageTrust()) is verdict


@pytest.mark.parametrize("refused", [(), (8,), (0, 8)], ids=["none", "the flag", "all"])
def test_the_header_for_rpm_is_in_memory_where_the_system_has_such_files(
    monkeypatch: pytest.MonkeyPatch, refused: tuple[int, ...]
) -> None:
    real, asked = os.memfd_create, list[int]()

    def make(name: str, flags: int) -> int:
        asked.append(flags & 8)
        if asked[-1] in refused:
            raise OSError(errno.EACCES if asked[-1] == 0 else errno.EINVAL, "refused")
        return real(name, flags & ~8)

    monkeypatch.setattr(os, "memfd_create", make)
    with package_signature._memory_file() as file:
        file.write(b"header")
        file.seek(0)
        assert os.read(file.fileno(), 9) == b"header" and not os.get_inheritable(file.fileno())
    assert asked == ([8] if 8 not in refused else [8, 0])
