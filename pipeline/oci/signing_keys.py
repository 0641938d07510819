"""Generate signing keys, load signing and verifying keys from files, sign and verify bytes.

Supported are the kinds that all verifiers accept: ECDSA on P-256, and RSA (PKCS #1 v1.5) of 2048, 3072 and 4096 bits,
both with SHA-256. Not so P-384, P-521 and Ed25519: `cosign verify --key` 3.1 refuses what `cosign sign` signs with such
a key, because it hashes differently (tried). These are refused by name. Signing is deterministic (ECDSA by RFC 6979):
the same bytes under the same key give the same signature.

Secrets are never part of a message or a `repr`.
"""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.oci.private_key import (
    COSIGN_LABELS,
    decrypt_private_key,
    encrypt_private_key,
    pem_block,
    refuse_costly_derivation,
)
from pipeline.progress import QUIET, Progress

KEY_LIMIT = 64 << 10
"""Bytes of a key file: an RSA key of 4096 bits in PEM has some 3 KiB."""

RSA_BITS = (2048, 3072, 4096)
"""Key sizes in the "Sigstore algorithm registry"."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""OpenSSL's name of a curve → the usual one."""

_MAKE = (
    "create a signing key with cosign generate-key-pair, or "
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
)

WRONG_KEY_HINT = (
    "use the publisher's public key; what was signed before the key was changed needs the former one too: see "
    "'Changing the key' in docs/mirrors.md"
)

PasswordSource = Callable[[], bytes]
"""Function that returns the password; called at most once, and only if the key file is encrypted."""


@dataclass(frozen=True, slots=True, repr=False)
class VerifyingKey:
    """A public key that verifies signatures.

    `former`: keys of the same publisher from before this one, whose signatures count as well.
    """

    der: bytes
    """SubjectPublicKeyInfo (RFC 5280)."""
    former: tuple[VerifyingKey, ...] = ()

    @property
    def each(self) -> tuple[VerifyingKey, ...]:
        """This key and the former ones, each by itself."""
        return (VerifyingKey(self.der), *self.former)

    @property
    def pem(self) -> bytes:
        """The key in PEM, for verifiers' key files."""
        return _public(self.der).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def fingerprint(self) -> Digest:
        """The digest of its DER form, by which people compare keys."""
        return Digest.of(self.der)

    @property
    def hint(self) -> str:
        """The fingerprint in base64, by which a sigstore bundle names the key."""
        return base64.b64encode(bytes.fromhex(self.fingerprint.hex)).decode()

    @property
    def kind(self) -> str:
        """The kind of key: `ECDSA P-256`, `RSA 3072` …"""
        return _kind(_public(self.der))

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` (DER for ECDSA) of `data` is by this key or a former one."""
        if any(one.verifies(signature, data) for one in self.former):
            return True
        key = _public(self.der)
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            else:
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"VerifyingKey({self.kind}, {self.fingerprint})"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key that signs. Its `repr` shows only the fingerprint of its public key."""

    _key: PrivateKey = field(repr=False, compare=False)
    public: VerifyingKey

    def sign(self, data: bytes) -> bytes:
        """Sign `data`: ECDSA in DER, or RSA; the same bytes give the same signature."""
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def generate_key(password: bytes) -> tuple[bytes, bytes]:
    """Generate a P-256 key; return the private key encrypted as by cosign, the public in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encrypt_private_key(private, password), _verifying(key.public_key(), "key").pem


def load_signing_key(
    source: bytes | Path, password: PasswordSource | None = None, *, progress: Progress = QUIET
) -> SigningKey:
    """Load a private key from a file, or from a file's content.

    The file is PKCS #8 or SEC 1 in PEM, plain or encrypted, or in cosign's encrypted format.

    Warns of a file that others than its owner can read. Raises UsageError: `key-unreadable`, `key-malformed`,
    `key-not-private`, `key-kind`, `key-password-missing`, `key-password-wrong`, `key-derivation-costly`.
    """
    data, place = _content(source, progress)
    key = _private(data, password, place)
    if isinstance(key, PrivateKey):
        return SigningKey(key, _verifying(key.public_key(), place))
    raise _wrong_kind(key, place)


def load_verifying_key(
    source: bytes | Path, password: PasswordSource | None = None, *, progress: Progress = QUIET
) -> VerifyingKey:
    """Load a public key from a file, or from a file's content.

    The file is a public key in PEM, or a private one (as in `load_signing_key`), whose public key is returned. Raises
    UsageError with the codes of `load_signing_key`.
    """
    data, place = _content(source, progress)
    label, _ = pem_block(data, place)
    if not label.endswith("PUBLIC KEY"):
        private = _private(data, password, place)
        return _verifying(private.public_key() if isinstance(private, PrivateKey) else private, place)
    try:
        return _verifying(serialization.load_pem_public_key(data), place)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _malformed(place) from error


# --- keys of the library ----------------------------------------------------------------------------


def _public(der: bytes) -> PublicKey:
    key = serialization.load_der_public_key(der)
    assert isinstance(key, PublicKey)
    return key


def _verifying(key: object, place: str) -> VerifyingKey:
    """Convert a public key of the library. Raises UsageError `key-kind`."""
    usable = (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS
    )
    if not usable or not isinstance(key, PublicKey):
        raise _wrong_kind(key, place)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return VerifyingKey(key.public_bytes(serialization.Encoding.DER, form))


def _private(data: bytes, password: PasswordSource | None, place: str) -> object:
    label, body = pem_block(data, place)
    if label in COSIGN_LABELS:
        der = decrypt_private_key(body, _ask(password, place), place)
        try:
            return serialization.load_der_private_key(der, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _malformed(place) from error
    if "PRIVATE KEY" not in label:
        raise UsageError(
            "key-not-private" if label.endswith("PUBLIC KEY") else "key-malformed",
            f"this is a {label.lower()}, not a private key",
            place=place,
            hint="signing needs the private key; moving a tag signs, too",
        )
    if label == "ENCRYPTED PRIVATE KEY":
        refuse_costly_derivation(body, place)
    encrypted = label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in data
    secret = _ask(password, place) if encrypted else None
    try:
        return serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _wrong_password(place) if encrypted else _malformed(place) from error


def _ask(password: PasswordSource | None, place: str) -> bytes:
    if password is None:
        raise UsageError(
            "key-password-missing",
            "the key is encrypted, and no password was given",
            place=place,
            hint="set RELBUILD_KEY_PASSWORD or COSIGN_PASSWORD, or answer the prompt on a terminal",
        )
    return password()


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return "Ed25519"
    return type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey").lstrip("_")


def _wrong_kind(key: object, place: str) -> UsageError:
    return UsageError(
        "key-kind",
        f"the key is {_kind(key)}, which not all verifiers support; use ECDSA P-256 or "
        f"RSA with {', '.join(map(str, RSA_BITS[:-1]))} or {RSA_BITS[-1]} bits",
        place=place,
        hint=_MAKE,
    )


# --- files ------------------------------------------------------------------------------------------


def _content(source: bytes | Path, progress: Progress) -> tuple[bytes, str]:
    """Return the content of a key file, and its name for messages."""
    if isinstance(source, bytes):
        return _bounded(source, "key"), "key"
    place = str(source)
    try:
        with source.open("rb") as file:
            status = source.stat()
            data = file.read(KEY_LIMIT + 1)
    except OSError as error:
        raise UsageError(
            "key-unreadable",
            f"the key file cannot be read: {error.strerror}",
            place=place,
            hint="check the path and the permissions of the key file",
        ) from error
    if b"PRIVATE KEY" in data and stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        progress.warn(f"{place}: this private key is readable by others than its owner; run chmod 600")
    return _bounded(data, place), place


def _bounded(data: bytes, place: str) -> bytes:
    if len(data) > KEY_LIMIT:
        raise UsageError("key-malformed", f"the key file exceeds {KEY_LIMIT >> 10} KiB", place=place, hint=_MAKE)
    return data


def _malformed(place: str) -> UsageError:
    return UsageError("key-malformed", "invalid or unsupported key file", place=place, hint=_MAKE)


def _wrong_password(place: str) -> UsageError:
    return UsageError(
        "key-password-wrong",
        "wrong password, or the key file is damaged",
        place=place,
        hint="use the password that the key was created with",
    )
