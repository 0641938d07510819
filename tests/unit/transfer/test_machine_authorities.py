"""The machine's certificate authorities are read when a connection is encrypted, and not before."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.transfer import Network
from pipeline.transfer.machine_authorities import MachineAuthorities

_SETTINGS = (
    "protocol",
    "options",
    "verify_flags",
    "verify_mode",
    "check_hostname",
    "minimum_version",
    "maximum_version",
)


def test_it_verifies_as_the_default_context_does() -> None:
    made, default = MachineAuthorities(), ssl.create_default_context()
    assert [getattr(made, name) for name in _SETTINGS] == [getattr(default, name) for name in _SETTINGS]
    made.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
    assert made.get_ca_certs(binary_form=True) == default.get_ca_certs(binary_form=True)


def test_authorities_are_read_once_when_something_is_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self, purpose: read.append(purpose))
    with Network().client():
        assert read == []
    made = MachineAuthorities()
    for _ in range(2):
        made.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
    assert read == [ssl.Purpose.SERVER_AUTH]


def test_the_authorities_of_a_file_are_read_when_something_is_encrypted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read = []
    (tmp_path / "ca.pem").write_bytes(b"authorities")
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda self, cafile: read.append(cafile))
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda self, purpose: read.append(purpose))
    with Network(ca_file=tmp_path / "ca.pem").client():
        assert read == []
    MachineAuthorities(tmp_path / "ca.pem").wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
    assert read == [tmp_path / "ca.pem"]


def test_a_file_without_certificates_is_an_error_with_a_code(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"no certificate")
    made = MachineAuthorities(tmp_path / "ca.pem")
    with pytest.raises(EnvironmentLacking) as caught:
        made.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
    assert (caught.value.code, caught.value.problems[0].place) == ("certificates-unreadable", str(tmp_path / "ca.pem"))
    with pytest.raises(EnvironmentLacking) as missing:
        MachineAuthorities(tmp_path / "missing.pem")
    assert missing.value.code == "certificates-unreadable"


def test_authorities_at_no_possible_path_are_an_error_with_a_code() -> None:
    with pytest.raises(EnvironmentLacking) as caught, Network(ca_file=Path("/a\0b")).client():
        pass
    assert caught.value.code == "certificates-unreadable"
