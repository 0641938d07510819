"""The machine's certificate authorities are read when a connection is encrypted, and not before."""

from __future__ import annotations

import ssl

import pytest

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
