"""The mirror's keys: made once, kept in the mirror's private folder, used through a short path.

RSA with SHA-256, because the OpenPGP parser inside rpm 4.18 and older takes nothing newer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY_BITS = 3072


class SigningFailed(Exception):
    """gpg or rpmsign refused; the message is its own."""


@dataclass(frozen=True, slots=True)
class Signer:
    """One key: a GnuPG home (reached through a short path) and the user id in it."""

    home: Path
    user: str

    def environment(self) -> dict[str, str]:
        """Return the environment for gpg and for what calls it."""
        return {**os.environ, "GNUPGHOME": str(self.home), "LC_ALL": "C.UTF-8"}

    def sign_packages(self, packages: Iterable[Path]) -> None:
        """Sign RPMs in place; an earlier signature is replaced."""
        files = [str(p) for p in packages]
        self._run(
            "rpmsign",
            "--define",
            f"_gpg_name {self.user}",
            "--define",
            "_gpg_digest_algo sha256",
            *self._gpg(),
            "--addsign",
            *files,
        )

    def _gpg(self) -> tuple[str, ...]:
        gpg = shutil.which("gpg") or "gpg"
        return ("--define", f"__gpg {gpg}")

    def sign_detached(self, file: Path) -> None:
        """Write an armoured detached signature beside ``file`` (``file.asc``)."""
        self._run(
            "gpg",
            "--batch",
            "--yes",
            "--armor",
            "--digest-algo",
            "SHA256",
            "--local-user",
            self.user,
            "--detach-sign",
            str(file),
        )

    def public_key(self) -> bytes:
        """Return the armoured public key."""
        return self._run("gpg", "--batch", "--armor", "--export", self.user)

    def fingerprint(self) -> str:
        """Return the key's fingerprint in hexadecimal."""
        listing = self._run("gpg", "--batch", "--with-colons", "--list-keys", self.user).decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def make_key(self) -> None:
        """Generate the key. It has no passphrase and never expires: it guards nothing."""
        parameters = (
            "%no-protection\nKey-Type: RSA\n"
            f"Key-Length: {KEY_BITS}\nKey-Usage: sign\nName-Real: {self.user}\n"
            "Name-Comment: development only\nExpire-Date: 0\n%commit\n"
        )
        self._run("gpg", "--batch", "--quiet", "--gen-key", stdin=parameters.encode())

    def _run(self, *command: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(list(command), env=self.environment(), input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            raise SigningFailed(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout


@contextmanager
def signer(home: Path, user: str) -> Iterator[Signer]:
    """Yield a ``Signer`` for the key in ``home``, made if it is not there yet.

    gpg-agent's socket path must be shorter than 108 bytes, whatever the mirror's own path is, so
    gpg sees the folder through a symlink in the temporary directory. The agent is ended after use.
    """
    with tempfile.TemporaryDirectory(prefix="mirror-gpg-") as folder:
        short = Path(folder) / "home"
        ready = home / "ready"
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True, mode=0o700)
        short.symlink_to(home)
        result = Signer(short, user)
        try:
            if not ready.exists():
                result.make_key()
                ready.touch()
            yield result
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=result.environment(), capture_output=True, check=False)
