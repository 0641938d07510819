"""Key files in cosign's format that are opened at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.oci import generate_key, private_key


def cheap_key(password: bytes) -> tuple[bytes, bytes]:
    """Make a key as `generate_key` does, with the smallest parameters of scrypt: private key file, public key file.

    With cosign's own parameters, each process that opens the key computes for a fifth of a second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_key, "SCRYPT_N", 2)
        return generate_key(password)


def write_cheap_key(folder: Path, name: str, password: str) -> None:
    """Write `NAME.key` and `NAME.pub` as `relbuild keygen` does."""
    private, public = cheap_key(password.encode())
    (folder / f"{name}.key").touch(0o600)
    (folder / f"{name}.key").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
