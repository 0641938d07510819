"""Verify a package's signatures by given keys, and its payload's digest.

Each signature is verified by itself, as in rpm 6: one good signature by a trusted key suffices, and none by a trusted
key may be bad. Those over the header are verified by rpm with a keyring of only the given keys; rpm's own key database
and configuration are never used. Those over header and payload (before rpm 4.14, the only ones to cover the payload)
are verified by `gpgv`, by its status lines (doc/DETAILS). The presence of a signature is checked here, because rpm by
default accepts an unsigned package. The compressed payload is hashed and compared with the digest in the signed header.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import IO, Final

from pipeline.digest import CHUNK
from pipeline.errors import VerificationError
from pipeline.model.signing_key import AcceptedSignature, KeyFault, PackageTrust, UnusableKey
from pipeline.openpgp_packets import HASHES, MD5, RIPEMD160, SHA1, Signature, dearmor
from pipeline.packages.payload_hash import PASSED_ALGORITHM, PayloadHash
from pipeline.packages.rpm_file_layout import RpmFileLayout, package_damaged, read_rpm_layout
from pipeline.packages.rpm_keyring import key_ids, make_keyring, readable_certificate
from pipeline.packages.rpm_library import header_from_handle, rpm
from pipeline.packages.signature_header import PackageSignature, read_signatures, with_one_signature
from pipeline.process import run

_PGP_SHA256 = 8
"""The number of SHA-256 in OpenPGP (RFC 4880, 9.4) and in rpm."""
_PAYLOAD_HASHES = {8: "sha256", 9: "sha384", 10: "sha512"}
_PAYLOAD_TAG, _PAYLOAD_ALGORITHM_TAG = 5092, 5093
"""RPMTAG_PAYLOADDIGEST and RPMTAG_PAYLOADDIGESTALGO, which rpm 6 calls PAYLOADSHA256 and PAYLOADSHA256ALGO."""
_RPM_6_TAG = 5114
"""RPMTAG_RPMFORMAT, which has no name in rpm before 6. A package of format 6 has only its payload's SHA-256."""

_CHECKABLE_VERSIONS = frozenset({3, 4})
_CHECKABLE_ALGORITHMS = frozenset({1, 3, 17, 22})
"""Algorithms that every rpm since 4.14 verifies: RSA, DSA, EdDSA. For others, only rpm's good verdict counts."""
_GPG_ALGORITHMS = _CHECKABLE_ALGORITHMS | {19}
_BINARY_DOCUMENT = 0
"""The type of signature over bytes as they are (RFC 9580, 5.2.1). One over text leaves out line ends and blanks."""
_BROKEN = frozenset({MD5, RIPEMD160})
"""Hashes that are accepted for no repository."""

_MFD_NOEXEC_SEAL: Final = 8
"""Flag of memfd_create(2) since Linux 6.3, without which a system may refuse it (vm.memfd_noexec=2)."""

_GPGV_TIME = 600.0
"""Timeout in seconds; gpgv hashes the whole package, at 200 MB/s on a slow core."""

_UNSIGNED_HINT = (
    "use a signed build of the package; one of your own: sign it with `rpmsign --addsign`, and add your key to the "
    "repository's 'keys'"
)
_SIGNED_HINT = "add the key that signs the package to the repository's 'keys', or do not use the package"
_DAMAGED_HINT = "download it again; if that does not help, report it to the repository's maintainer"


class _Verdict(Enum):
    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "by a key that is not trusted"
    WEAK = "over a hash that is not accepted"
    UNSUPPORTED = "of a kind that cannot be checked here"


def verify_package(path: Path, trust: PackageTrust, *, passed: PayloadHash | None = None) -> str:
    """Verify an RPM against the keys and the policy of its repository, and no others.

    Returns the id of the key that signed it, in lower-case hex. The payload is not read again if `passed` has hashed
    the bytes of this very file, and the header names a SHA-256.

    Raises VerificationError `package-unsigned`, `package-key-unknown` (signed by no trusted key),
    `package-key-expired`, `package-key-revoked`, `package-signature-weak`, `package-signature-unsupported`,
    `package-signature-bad` (the header or payload is not what was signed), `package-old-format` (no signed header names
    the payload's digest, and the repository does not accept that), `package-damaged` (it is no RPM, or the payload is
    not the one that the header names).
    """
    layout = read_rpm_layout(path)
    trust = _readable(trust)
    verdicts = [(one, _judge(path, layout, one, trust)) for one in read_signatures(path, layout)]
    trusted = {key_id for one in trust.certificates for key_id in key_ids(one)}
    for one, verdict in verdicts:
        # rpm calls a stranger's signature bad too. In rpm 6's list that says nothing; elsewhere rpm refuses it.
        if verdict is _Verdict.BAD and (not one.listed or one.said is None or one.said.issuer in trusted):
            raise _bad(path, one)
    over_header = [one for one, verdict in verdicts if verdict is _Verdict.GOOD and not one.whole]
    over_all = [one for one, verdict in verdicts if verdict is _Verdict.GOOD and one.whole]
    if not over_header and not over_all:
        raise _refused(path, verdicts, trust.unusable)
    header = _open(path)
    named = _payload_digest(header)
    if named is not None and over_header:
        _verify_payload(path, layout, *named, passed)
        return _key_id(over_header[0])
    if AcceptedSignature.LEGACY_HEADER_PAYLOAD not in trust.accept:
        raise _old_format(path)
    if not over_all:
        weak = [one.said for one, verdict in verdicts if verdict is _Verdict.WEAK and one.whole and one.said]
        raise _weak(path, weak[0]) if weak else _unsigned_payload(path)
    if named is not None:
        _verify_payload(path, layout, *named, passed)
    return _key_id(over_all[0])


def unreadable_keys(trust: PackageTrust) -> tuple[UnusableKey, ...]:
    """Return the trusted keys that this rpm cannot read."""
    return tuple(key for one in trust.certificates for key in readable_certificate(one)[1])


def _readable(trust: PackageTrust) -> PackageTrust:
    """Return the trust without the keys that this rpm cannot read."""
    readable = tuple(one for one, _ in map(readable_certificate, trust.certificates) if one)
    return PackageTrust(readable, (*trust.unusable, *unreadable_keys(trust)), trust.accept)


def _judge(path: Path, layout: RpmFileLayout, signature: PackageSignature, trust: PackageTrust) -> _Verdict:
    said = signature.said
    if said is not None and said.kind != _BINARY_DOCUMENT:
        return _Verdict.UNSUPPORTED
    if signature.whole:
        if said is None:
            return _Verdict.BAD
        if said.version not in _CHECKABLE_VERSIONS or said.algorithm not in _GPG_ALGORITHMS:
            return _Verdict.UNSUPPORTED
        verdict = _ask_gpgv(path, layout, signature, trust.certificates)
    else:
        verdict = _ask_rpm(path, layout, signature, trust.certificates)
        checkable = said is not None and said.version in _CHECKABLE_VERSIONS and said.algorithm in _CHECKABLE_ALGORITHMS
        if not checkable and verdict is not _Verdict.GOOD:
            return _Verdict.UNSUPPORTED if said is not None or signature.listed else verdict
    if verdict is not _Verdict.GOOD:
        return verdict
    if said is None:
        return _Verdict.UNSUPPORTED  # Its hash cannot be told.
    return _Verdict.WEAK if _is_weak(said.hash, trust) else verdict


def _is_weak(algorithm: int, trust: PackageTrust) -> bool:
    return algorithm in _BROKEN or (algorithm == SHA1 and AcceptedSignature.SHA1 not in trust.accept)


def _ask_rpm(
    path: Path, layout: RpmFileLayout, signature: PackageSignature, certificates: tuple[bytes, ...]
) -> _Verdict:
    """Return rpm's verdict on one signature over the header."""
    transaction = rpm.TransactionSet("/", 0)
    transaction.setKeyring(make_keyring(certificates))
    transaction.setVSFlags(rpm.RPMVSF_DEFAULT)
    with _memory_file() as file:
        file.write(with_one_signature(path, layout, signature))
        file.seek(0)
        try:
            header_from_handle(transaction, file.fileno(), path)
        except rpm.error as error:
            reason = str(error)
            unknown = "not available" in reason or "not trusted" in reason
            return _Verdict.UNKNOWN if unknown else _Verdict.BAD
    return _Verdict.GOOD


def _memory_file() -> IO[bytes]:
    """Open a file in memory, or a temporary one where the system refuses that."""
    for flags in (os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL, os.MFD_CLOEXEC):
        with contextlib.suppress(OSError):
            return os.fdopen(os.memfd_create("relbuild-header", flags), "w+b", buffering=0)
    return tempfile.TemporaryFile("w+b")


def _ask_gpgv(
    path: Path, layout: RpmFileLayout, signature: PackageSignature, certificates: tuple[bytes, ...]
) -> _Verdict:
    """Return gpgv's verdict on one signature over header and payload.

    Expiry is not checked here: the certificates have no expired keys, except for a lock made before they expired.
    """
    with tempfile.TemporaryDirectory(prefix="relbuild-gpg-") as home, path.open("rb") as file:
        folder = Path(home)
        (folder / "keys.gpg").write_bytes(b"".join(dearmor(one) for one in certificates))
        (folder / "signature").write_bytes(signature.packet)
        file.seek(layout.header)
        judged = run(
            [
                # Names within the folder: GnuPG takes a keyring whose path has a colon for a URL.
                *("gpgv", "--homedir", home, "--keyring", "./keys.gpg"),
                *("--status-fd", "1", "./signature", "-"),
            ],
            cwd=folder,
            stdin=file,
            timeout=_GPGV_TIME,
            check=False,
        )
    status = {line.split()[1] for line in judged.stdout.splitlines() if line.startswith(b"[GNUPG:] ")}
    if b"VALIDSIG" in status and b"BADSIG" not in status and judged.status == 0:
        return _Verdict.GOOD
    return _Verdict.UNKNOWN if b"NO_PUBKEY" in status else _Verdict.BAD


def _open(path: Path) -> rpm.hdr:
    """Read the header, and check it by the digests in the signature header."""
    transaction = rpm.TransactionSet("/", 0)
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return header_from_handle(transaction, handle, path)
    except rpm.error as error:
        raise package_damaged(path, f"rpm cannot read its header: {error}") from error
    finally:
        os.close(handle)


def _payload_digest(header: rpm.hdr) -> tuple[str, str] | None:
    """Return the hash name and hex digest that the header states for the compressed payload."""
    named = header[_PAYLOAD_TAG]
    number = header[_PAYLOAD_ALGORITHM_TAG]
    if number is None and header[_RPM_6_TAG]:
        number = _PGP_SHA256
    algorithm = _PAYLOAD_HASHES.get(number)
    return (algorithm, named[0].lower()) if named and algorithm else None


def _verify_payload(
    path: Path, layout: RpmFileLayout, algorithm: str, expected: str, passed: PayloadHash | None
) -> None:
    found = passed.payload_digest(layout.payload) if passed is not None and algorithm == PASSED_ALGORITHM else None
    if (found or _hash_payload(path, layout, algorithm)) != expected:
        raise package_damaged(path, "the payload does not match the digest in its header")


def _hash_payload(path: Path, layout: RpmFileLayout, algorithm: str) -> str:
    found = hashlib.new(algorithm)
    with path.open("rb") as file:
        file.seek(layout.payload)
        while data := file.read(CHUNK):
            found.update(data)
    return found.hexdigest()


def _key_id(signature: PackageSignature) -> str:
    return signature.said.issuer.lower() if signature.said is not None else ""


# --- the errors -------------------------------------------------------------------------------------------


def _bad(path: Path, signature: PackageSignature) -> VerificationError:
    what = "header and payload" if signature.whole else "the header"
    kind = f" ({signature.said}, key {signature.said.issuer})" if signature.said else ""
    return VerificationError(
        "package-signature-bad",
        f"{path.name}: the signature over {what} is invalid{kind}",
        place=str(path),
        hint=_DAMAGED_HINT,
    )


_Verdicts = Sequence[tuple[PackageSignature, _Verdict]]


def _refused(path: Path, verdicts: _Verdicts, unusable: Sequence[UnusableKey]) -> VerificationError:
    """Return the error for a package without a good signature, with the most specific reason."""
    for one, verdict in verdicts:
        if verdict is _Verdict.BAD:
            return _bad(path, one)
    # Of several faults of one key, as files from different years tell of it, the last in this order is told.
    told_last = (KeyFault.UNREADABLE, KeyFault.EXPIRED, KeyFault.REVOKED)
    ordered = sorted(unusable, key=lambda key: told_last.index(key.fault))
    by_id = {key_id: key for key in ordered for key_id in key.key_ids}
    keys = [by_id[one.said.issuer] for one, _ in verdicts if one.said is not None and one.said.issuer in by_id]
    for key in keys:
        if key.fault is not KeyFault.UNREADABLE:
            return _by_unusable(path, key)
    of = {verdict: one.said for one, verdict in verdicts}
    weak = of.get(_Verdict.WEAK)
    if weak is not None:
        return _weak(path, weak)
    if _Verdict.UNSUPPORTED in of or keys:
        said = of.get(_Verdict.UNSUPPORTED)
        kind = f"{said}, key {said.issuer}" if said else str(keys[0]) if keys else "of an unknown kind"
        return VerificationError(
            "package-signature-unsupported",
            f"{path.name}: its signature cannot be checked by rpm {rpm.__version__} ({kind})",
            place=str(path),
            hint="build where rpm is newer, or use a package that an RSA or EdDSA key of OpenPGP v4 signs too",
        )
    if of:
        return VerificationError(
            "package-key-unknown",
            f"{path.name} is signed by a key that is not trusted for its repository"
            f" ({', '.join(sorted({one.said.issuer for one, _ in verdicts if one.said and one.said.issuer}))})",
            place=str(path),
            hint=_SIGNED_HINT,
        )
    return VerificationError("package-unsigned", f"{path.name} is not signed", place=str(path), hint=_UNSIGNED_HINT)


def _by_unusable(path: Path, key: UnusableKey) -> VerificationError:
    revoked = key.fault is KeyFault.REVOKED
    return VerificationError(
        "package-key-revoked" if revoked else "package-key-expired",
        f"{path.name} is signed by a key that no longer counts: {key}",
        place=str(path),
        hint="use a package that the vendor signed with another key"
        if revoked
        else "take the vendor's present key file, which may have the key with a later date, or a package that is "
        "signed with another key",
    )


def _weak(path: Path, said: Signature) -> VerificationError:
    way = ", or write 'accept: [sha1]' for the repository" if said.hash == SHA1 else ""
    return VerificationError(
        "package-signature-weak",
        f"{path.name}: its signature is over {HASHES[said.hash]}, which can be forged",
        place=str(path),
        hint=f"use a newer package{way}",
    )


def _old_format(path: Path) -> VerificationError:
    return VerificationError(
        "package-old-format",
        f"{path.name} is of an old format (made or signed as rpm before 4.14 did): no signed header names its payload",
        place=str(path),
        hint="write 'accept: [legacy-header-payload]' for the repository to accept a signature over header and payload",
    )


def _unsigned_payload(path: Path) -> VerificationError:
    return VerificationError(
        "package-old-format",
        f"{path.name} is of an old format, and no good signature covers its payload",
        place=str(path),
        hint="use a newer package; there is no way to tell if the payload of this one is its maker's",
    )
