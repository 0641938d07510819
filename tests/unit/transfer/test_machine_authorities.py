"""The machine's certificate authorities are read when a connection is encrypted, and not before."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import EnvironmentLacking
from pipeline.transfer import Network
from pipeline.transfer.machine_authorities import MachineAuthorities
from tests.support.authority import DAY, Authority

_SETTINGS = (
    "protocol",
    "options",
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


@pytest.mark.parametrize("trusted", ["authority", "server"])
def test_a_chain_ends_at_what_is_trusted_whatever_python_demands(tmp_path: Path, trusted: str) -> None:
    """The authority has no key identifier, as many a company's; Python 3.13 refuses it, and 3.11 the server's own."""
    authority = Authority(tmp_path, "authority")
    issued = authority.issue("server")
    _shake_hands(issued, MachineAuthorities({"authority": authority.certificate, "server": issued[0]}[trusted]))


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"ends": -DAY / 2}, "certificate has expired"),
        ({"host": "other.example"}, "Hostname mismatch"),
        ({}, "unable to get local issuer certificate"),
    ],
    ids=["expired", "another host", "another authority"],
)
def test_what_curl_refuses_is_refused(tmp_path: Path, changed: dict[str, Any], refused: str) -> None:
    authority = Authority(tmp_path, "authority")
    trusted = authority if changed else Authority(tmp_path, "another")
    with pytest.raises(ssl.SSLCertVerificationError, match=refused):
        _shake_hands(authority.issue("server", **changed), MachineAuthorities(trusted.certificate))


def _shake_hands(issued: tuple[Path, Path], client: ssl.SSLContext) -> None:
    """Let a client in this process meet a server with a certificate, for `localhost`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                sides.remove(side)


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
