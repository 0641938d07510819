"""Verify detached signatures over a repository's repomd.xml, with gpgv.

`gpgv` verifies them, in an empty home. Its verdict is taken from its exit status and its status lines, which GnuPG
documents (doc/DETAILS), never from its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import VerificationError
from pipeline.openpgp_packets import dearmor
from pipeline.repos.openpgp_keys import RepositoryKey, counting_certificates

SIGNATURE_LIMIT = 64 << 10

_GPG_TIME = 30.0
"""Timeout in seconds; it takes milliseconds."""

_BAD = (b"BADSIG", b"ERRSIG", b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG")


def verify_detached(data: bytes, signature: bytes, keys: Sequence[RepositoryKey], *, name: str) -> str:
    """Verify a detached signature over `data` by one of `keys`.

    Returns the primary key's fingerprint. Raises VerificationError `metadata-signature-bad`, also for expired and
    revoked keys: with a stolen old key, old metadata could be signed again.
    """
    if not keys:
        raise VerificationError(
            "metadata-signature-bad",
            f"{name} must be signed, but the repository has no keys",
            place=name,
            hint="add the repository's key under 'keys'",
        )
    import tempfile  # Most repositories sign packages only.

    from pipeline.process import run

    # gpgv takes the first copy of a key in its keyring: an older one must not hide a revocation.
    certificates, unusable = counting_certificates(keys)
    with tempfile.TemporaryDirectory(prefix="relbuild-gpg-") as home:
        folder = Path(home)
        (folder / "keys.gpg").write_bytes(b"".join(dearmor(block) for block in certificates))
        (folder / "data").write_bytes(data)
        (folder / "signature").write_bytes(signature)
        judged = run(
            [
                # Names within the folder: GnuPG takes a keyring whose path has a colon for a URL.
                *("gpgv", "--homedir", home, "--keyring", "./keys.gpg"),
                *("--weak-digest", "SHA1", "--status-fd", "1", "./signature", "./data"),
            ],
            cwd=folder,
            timeout=_GPG_TIME,
            check=False,
        )
    status = [line.split()[1:] for line in judged.stdout.splitlines() if line.startswith(b"[GNUPG:] ")]
    valid = [words[-1].decode() for words in status if words and words[0] == b"VALIDSIG"]
    bad = [words[0].decode() for words in status if words and words[0] in _BAD]
    if judged.status != 0 or bad or not valid or not {*valid} <= {key.fingerprint for key in keys}:
        detail = judged.stderr.decode(errors="replace").strip().splitlines()
        lacking = {words[1].decode() for words in status if len(words) > 1 and words[0] == b"NO_PUBKEY"}
        detail += [str(key) for key in unusable if not lacking.isdisjoint(key.key_ids)]
        raise VerificationError(
            "metadata-signature-bad",
            f"{name} is not signed by a key of its repository ({'; '.join(detail[-2:]) or 'no verdict'})",
            place=name,
            hint="check 'keys' of the repository; if they are correct, do not use this mirror",
        )
    return valid[0]
