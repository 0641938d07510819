"""OpenPGP keys made with GnuPG: with subkeys, expired, revoked, in the files that vendors publish."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import HUNG

_DAY = "20200101"
EXPIRES, SUBKEY_EXPIRES = "2020-02-01", "2020-01-16"
"""Keys are made at a time that has passed, so that they can have expired."""


class KeyMaker:
    """One primary key that signs, with a subkey that signs, in a home of its own."""

    def __init__(self, home: Path, algorithm: str = "ed25519", *, expires: str = "never") -> None:
        self._home = home
        self._minutes = 0
        home.mkdir(mode=0o700)
        name = home.name
        self._gpg("--quick-generate-key", f"{name} <{name}@example.invalid>", algorithm, "sign,cert", expires)
        self.primary = self._fingerprints()[0]
        self._gpg("--quick-add-key", self.primary, algorithm, "sign", expires)
        self.primary, self.subkey = self._fingerprints()

    @property
    def public(self) -> bytes:
        """The certificate, armored."""
        return self._gpg("--armor", "--export")

    @property
    def binary(self) -> bytes:
        """The certificate as a keyring has it."""
        return self._gpg("--export")

    @functools.cache  # noqa: B019
    def sign(self, data: bytes, *, subkey: bool = False, digest: str = "SHA256", text: bool = False) -> bytes:
        """A detached signature over `data`, of packets."""
        who = self.subkey if subkey else self.primary
        mode = ["--textmode"] if text else []
        return self._gpg("--digest-algo", digest, "--local-user", f"{who}!", *mode, "--detach-sign", data=data)

    @functools.cache  # noqa: B019 - it lives as long as a module's tests
    def expired(self, *, subkey: bool = False) -> bytes:
        """The certificate, its primary key or subkey expired since."""
        with self._copy() as other:
            words = [other.subkey] if subkey else []
            other._gpg("--quick-set-expire", other.primary, EXPIRES, *words)
            return other.public

    @functools.cache  # noqa: B019
    def revoked(self, *, subkey: bool = False) -> bytes:
        """The certificate, its primary key or subkey revoked."""
        with self._copy() as other:
            words = "key 1\nrevkey\ny\n0\n\ny\nsave\n" if subkey else "revkey\ny\n0\n\ny\nsave\n"
            other._gpg("--command-fd", "0", "--edit-key", other.primary, data=words.encode(), batch=False)
            return other.public

    @functools.cache  # noqa: B019
    def expired_with_subkey_gone(self, *, revoked: bool) -> bytes:
        """The certificate, its primary key expired, and its subkey revoked or expired a fortnight before."""
        with self._copy() as other:
            if revoked:
                words = b"key 1\nrevkey\ny\n0\n\ny\nsave\n"
                other._gpg("--command-fd", "0", "--edit-key", other.primary, data=words, batch=False)
            else:
                other._gpg("--quick-set-expire", other.primary, SUBKEY_EXPIRES, other.subkey)
            other._gpg("--quick-set-expire", other.primary, EXPIRES)
            return other.public

    def close(self) -> None:
        """End gpg's agent."""
        command = ["gpgconf", "--homedir", str(self._home), "--kill", "all"]
        subprocess.run(command, timeout=HUNG, capture_output=True, check=False)

    @contextmanager
    def _copy(self) -> Iterator[KeyMaker]:
        other = object.__new__(KeyMaker)
        other._home = self._home.with_name(f"{self._home.name}-copy")
        other.primary, other.subkey, other._minutes = self.primary, self.subkey, self._minutes
        shutil.copytree(self._home, other._home, ignore=shutil.ignore_patterns("S.*", "*.lock"))
        try:
            yield other
        finally:
            other.close()
            shutil.rmtree(other._home, ignore_errors=True)

    def _fingerprints(self) -> list[str]:
        lines = self._gpg("--list-keys", "--with-colons").decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr")]

    def _gpg(self, *words: str, data: bytes = b"", batch: bool = True) -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--no-tty", "--quiet", "--yes", "--pinentry-mode", "loopback"]
        # Time goes on from call to call: on a busy machine a key would be made later than it signs.
        self._minutes += 1
        now = f"{_DAY}T{self._minutes // 60:02}{self._minutes % 60:02}00"
        command += [*(["--batch"] if batch else []), "--passphrase", "", "--faked-system-time", now, *words]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, input=data, capture_output=True, timeout=HUNG, env=environment, check=False)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr.decode(errors='replace')}"
        return done.stdout


@contextmanager
def key_maker(home: Path, algorithm: str = "ed25519", *, expires: str = "never") -> Iterator[KeyMaker]:
    """A `KeyMaker` that is closed at the end."""
    made = KeyMaker(home, algorithm, expires=expires)
    try:
        yield made
    finally:
        made.close()


V6_KEY = bytes.fromhex("c62a0663877fe31b00000020") + bytes(range(32))
"""A public-key packet of OpenPGP v6 (Ed25519, RFC 9580), which neither GnuPG 2.2 nor rpm 4.18 reads."""
_V6_BODY = bytes([6, 0, 27, 10, 0, 0, 0, 0, 0, 0, 0, 10, 9, 16]) + bytes.fromhex("6118ABE481C41473")
_V6_BODY += bytes(2 + 1 + 16 + 64)
V6_SIGNATURE = bytes([0xC2, len(_V6_BODY)]) + _V6_BODY
"""A signature packet of OpenPGP v6 (Ed25519 over SHA512), with an issuer and no meaning."""
