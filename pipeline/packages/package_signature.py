"""Verification of a package's signature and of its payload's digest.

Is a package signed by one of these keys, and are its bytes the signed ones?

rpm verifies the header's signature with a keyring that holds nothing but the given keys; rpm's own database
and configuration of keys are never asked. That rpm calls an unsigned package good unless told otherwise is
why the presence of a signature is checked here. The payload is hashed as it lies in the file, compressed, and
compared with RPMTAG_PAYLOADDIGEST in the signed header.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from pipeline.digest import CHUNK
from pipeline.errors import RelbuildError, VerificationError
from pipeline.packages.rpm_file_layout import RpmFileLayout, package_damaged, read_rpm_layout
from pipeline.packages.rpm_library import rpm

_PGP_SHA256 = 8
"""OpenPGP's number of the hash (RFC 4880, 9.4), which rpm uses too."""

_SIGNED_HINT = "add the key that signs the package to the repository's 'keys', or do not use the package"
_KEYRING = threading.Lock()
_SIGNATURE_PACKET = re.compile(r"[Kk]ey ID ([0-9a-fA-F]{8,40})")


def verify_package(path: Path, keys: Sequence[bytes]) -> str:
    """Verify an RPM against armored OpenPGP `keys` and no others.

    Returns the id of the key that signed it, in lower-case hex.

    Raises VerificationError `package-unsigned`, `package-key-unknown` (signed by none of `keys`),
    `package-signature-bad` (the header is not what was signed), `package-damaged` (it is no RPM, or the
    payload is not the one that the header names).
    """
    layout = read_rpm_layout(path)
    transaction = rpm.TransactionSet("/", 0)
    transaction.setKeyring(_keyring(tuple(keys)))
    transaction.setVSFlags(rpm.RPMVSF_DEFAULT)
    header = _verified_header(path, transaction)
    signature = header[rpm.RPMTAG_RSAHEADER] or header[rpm.RPMTAG_DSAHEADER]
    if not signature:
        raise VerificationError("package-unsigned", f"{path.name} is not signed", place=str(path), hint=_SIGNED_HINT)
    _verify_payload(path, layout, header)
    return _key_id(header)


def _verified_header(path: Path, transaction: rpm.TransactionSet) -> rpm.hdr:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return transaction.hdrFromFdno(handle)
    except rpm.error as error:
        reason = str(error)
        if "not available" in reason or "not trusted" in reason:
            raise VerificationError(
                "package-key-unknown",
                f"{path.name} is signed by a key that is not trusted for its repository",
                place=str(path),
                hint=_SIGNED_HINT,
            ) from error
        raise VerificationError(
            "package-signature-bad",
            f"{path.name}: the header's signature is invalid ({reason})",
            place=str(path),
            hint="download it again; if that does not help, report it to the repository's maintainer",
        ) from error
    finally:
        os.close(handle)


def _verify_payload(path: Path, layout: RpmFileLayout, header: rpm.hdr) -> None:
    named = header[rpm.RPMTAG_PAYLOADDIGEST]
    if not named or header[rpm.RPMTAG_PAYLOADDIGESTALGO] != _PGP_SHA256:
        raise package_damaged(path, "its header has no sha256 of the payload (it was built by an rpm older than 4.14)")
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(layout.payload)
        while data := file.read(CHUNK):
            found.update(data)
    if found.hexdigest() != named[0]:
        raise package_damaged(path, "the payload does not match the digest in its header")


def _key_id(header: rpm.hdr) -> str:
    told = header.sprintf("%|RSAHEADER?{%{RSAHEADER:pgpsig}}:{%{DSAHEADER:pgpsig}}|")
    found = _SIGNATURE_PACKET.search(told)
    return found.group(1).lower() if found else ""


@functools.lru_cache(maxsize=32)
def _keyring(keys: tuple[bytes, ...]) -> rpm.keyring:
    """A keyring with these keys and their subkeys.

    rpm reads them itself, from files, because only so does it take subkeys in (and check that they belong to
    their key). Where to read from is told by global macros, hence the lock.
    """
    with tempfile.TemporaryDirectory(prefix="relbuild-keys-") as folder, _KEYRING:
        for number, key in enumerate(keys):
            Path(folder, f"{number}.key").write_bytes(key)
        rpm.addMacro("_keyring", "fs")
        rpm.addMacro("_keyringpath", f"{folder}/")
        try:
            return rpm.TransactionSet("/", 0).getKeyring(True)
        except rpm.error as error:
            raise RelbuildError("keyring-unreadable", f"rpm cannot read the keys: {error}") from error
        finally:
            rpm.delMacro("_keyring")
            rpm.delMacro("_keyringpath")
