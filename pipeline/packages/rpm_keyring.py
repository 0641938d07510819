"""Make an rpm keyring from given certificates, without the parts that this rpm cannot read."""

from __future__ import annotations

import functools
import tempfile
import threading
from pathlib import Path

from pipeline.errors import RelbuildError
from pipeline.model.signing_key import KeyFault, UnusableKey
from pipeline.openpgp_packets import (
    MalformedPacket,
    certificate_keys,
    dearmor,
    prune_certificate,
    split_certificates,
)
from pipeline.packages.macro_paths import macro_path
from pipeline.packages.rpm_library import rpm

_MACROS_LOCK = threading.Lock()
_NOT_READABLE = f"rpm {rpm.__version__} does not read it"


@functools.lru_cache(maxsize=512)
def readable_certificate(armored: bytes) -> tuple[bytes, tuple[UnusableKey, ...]]:
    """Return an armored certificate without the keys that this rpm cannot read, and these keys.

    rpm refuses a whole certificate for one subkey that it cannot read, so each subkey is then tried alone with the
    primary key. The certificate is empty if rpm cannot read the primary key.
    """
    if _reads(armored):
        return armored, ()
    try:
        (packets,) = split_certificates(dearmor(armored))
    except (MalformedPacket, ValueError):
        return b"", ()
    primary, *subkeys = [key for _, key in certificate_keys(packets)]
    ids = tuple(key.key_id for key in (primary, *subkeys))
    whole = (UnusableKey(primary.fingerprint, ids, KeyFault.UNREADABLE, detail=_NOT_READABLE),)
    names = {key.fingerprint for key in subkeys}
    if not _reads(prune_certificate(armored, names)):
        return b"", whole
    bad = [key for key in subkeys if not _reads(prune_certificate(armored, names - {key.fingerprint}))]
    left = prune_certificate(armored, {key.fingerprint for key in bad})
    if not _reads(left):
        return b"", whole
    unusable = [
        UnusableKey(key.fingerprint, (key.key_id,), KeyFault.UNREADABLE, True, detail=_NOT_READABLE) for key in bad
    ]
    return left, tuple(unusable)


@functools.lru_cache(maxsize=512)
def key_ids(armored: bytes) -> frozenset[str]:
    """Return the ids of a certificate's keys, as signatures name them."""
    (packets,) = split_certificates(dearmor(armored))
    return frozenset(key.key_id for _, key in certificate_keys(packets))


def _reads(armored: bytes) -> bool:
    try:
        rpm.pubkey(armored)
    except (ValueError, TypeError, rpm.error):
        return False
    return True


class _ThreadKeyrings(threading.local):
    """The keyrings that the calling thread made before.

    No two threads share one: a key of rpm's OpenSSL backend is completed without a lock when it first verifies
    (rpmio/digest_openssl.c), and packages are verified side by side. A keyring takes less than 1 ms.
    """

    def __init__(self) -> None:
        self.make = functools.lru_cache(maxsize=32)(_load_keyring)


def make_keyring(certificates: tuple[bytes, ...]) -> rpm.keyring:
    """Make the calling thread's keyring with only these armored certificates and their subkeys."""
    return _keyrings.make(certificates)


def _load_keyring(certificates: tuple[bytes, ...]) -> rpm.keyring:
    """Have rpm load a keyring.

    rpm loads them from files, because only then does it include subkeys (and check that they belong to their key).
    The folder is set by global macros, hence the lock.
    """
    with (
        tempfile.TemporaryDirectory(prefix="relbuild-keys-") as folder,
        macro_path(Path(folder)) as (_, path),
        _MACROS_LOCK,
    ):
        for number, certificate in enumerate(certificates):
            Path(folder, f"{number}.key").write_bytes(certificate)
        rpm.addMacro("_keyring", "fs")
        rpm.addMacro("_keyringpath", f"{path}/")
        try:
            return rpm.TransactionSet("/", 0).getKeyring(True)
        except rpm.error as error:
            raise RelbuildError("keyring-unreadable", f"rpm cannot read the keys: {error}") from error
        finally:
            rpm.delMacro("_keyring")
            rpm.delMacro("_keyringpath")


_keyrings = _ThreadKeyrings()
