"""Encrypt and decrypt private keys in cosign's format; limit the cost of key derivation.

cosign's format (securesystemslib's "encrypted", as go-securesystemslib writes it) is JSON in PEM: scrypt derives a key
from the password, with which NaCl's secretbox (XSalsa20 and Poly1305) encrypts the PKCS #8 bytes. The file contains the
cost of the derivation, and could demand all of the machine's memory and time, so that is limited here. For encrypted
PKCS #8 files the cost is checked here too, before the library decrypts them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Iterator

from pipeline.digest import canonical_json
from pipeline.errors import UsageError, VerificationError
from pipeline.oci.image_manifest import JsonReader

COSIGN_LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
"""PEM labels of cosign's format, now and before cosign 2."""

SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 16, 8, 1
"""Parameters that cosign uses: scrypt then needs 64 MiB and a fifth of a second."""

SCRYPT_MEMORY = 256 << 20
"""Bytes of memory that a file may demand for scrypt: four times cosign's."""

SCRYPT_WORK = 1 << 23
"""N·r·p that a file may demand: sixteen times cosign's, some seconds."""

PBKDF2_ITERATIONS = 20_000_000
"""Iterations that a PKCS #8 file may demand: thirty times what is advised, some seconds."""

_SALT = 32
_BOX_KEY = 32
"""Bytes of a key of NaCl's secretbox."""
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----\r?\n(.*?)-----END \1-----", re.DOTALL)
_SCRYPT_OID = bytes.fromhex("2b06010401da47040b")
"""1.3.6.1.4.1.11591.4.11 in DER (RFC 7914)."""


def pem_block(data: bytes, place: str) -> tuple[str, bytes]:
    """Return the label and the bytes of the first PEM block (RFC 7468) that is a key.

    Parameters before an EC key, as OpenSSL writes them, are skipped. Raises UsageError `key-malformed`.
    """
    for match in _PEM.finditer(data):
        label = match[1].decode("ascii")
        if not label.endswith("PARAMETERS"):
            body = b"".join(line for line in match[2].splitlines() if b":" not in line)
            try:
                return label, base64.b64decode(body, validate=False)
            except binascii.Error:
                break
    raise UsageError(
        "key-malformed",
        "the key file is not PEM",
        place=place,
        hint="a key file starts with -----BEGIN … KEY-----",
    )


def encrypt_private_key(der: bytes, password: bytes) -> bytes:
    """Encrypt PKCS #8 bytes; return a key file in cosign's format, with random salt and nonce."""
    from nacl.secret import SecretBox  # only here and below: other keys do not need it

    salt = secrets.token_bytes(_SALT)
    box = SecretBox(_derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P))
    sealed = box.encrypt(der, secrets.token_bytes(SecretBox.NONCE_SIZE))
    value = canonical_json(
        {
            "kdf": {
                "name": "scrypt",
                "params": {"N": SCRYPT_N, "r": SCRYPT_R, "p": SCRYPT_P},
                "salt": base64.b64encode(salt).decode(),
            },
            "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(sealed.nonce).decode()},
            "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
        }
    )
    text = base64.b64encode(value).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    label = COSIGN_LABELS[0]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def decrypt_private_key(body: bytes, password: bytes, place: str) -> bytes:
    """Decrypt a PEM block's content in cosign's format; return the PKCS #8 bytes.

    Raises UsageError `key-malformed`, `key-derivation-costly`, `key-password-wrong`.
    """
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        document = JsonReader.parse(body, place)
        derivation, cipher = document.get("kdf"), document.get("cipher")
        names = (derivation.get("name").text(), cipher.get("name").text())
        parameters = derivation.get("params")
        n, r, p = (parameters.get(name).number() for name in "Nrp")
        salt, nonce, sealed = (
            base64.b64decode(part.text(), validate=True)
            for part in (derivation.get("salt"), cipher.get("nonce"), document.get("ciphertext"))
        )
    except (VerificationError, ValueError) as error:
        raise _not_cosigns(place, "is not in cosign's format") from error
    if names != ("scrypt", "nacl/secretbox") or len(nonce) != SecretBox.NONCE_SIZE:
        raise _not_cosigns(place, "uses another encryption than cosign's")
    _refuse_costly_scrypt(n, r, p, place)
    try:
        return SecretBox(_derive(password, salt, n, r, p)).decrypt(sealed, nonce)
    except CryptoError as error:
        raise UsageError(
            "key-password-wrong",
            "wrong password, or the key file is damaged",
            place=place,
            hint="use the password that the key was created with",
        ) from error


def refuse_costly_derivation(body: bytes, place: str) -> None:
    """Refuse an EncryptedPrivateKeyInfo (RFC 5958) whose key derivation is too costly.

    The library that decrypts it has no limit. Raises UsageError `key-malformed`, `key-derivation-costly`.
    """
    try:
        (outer,) = _elements(body)
        algorithm = next(_elements(outer[1]))
        found = list(_leaves(algorithm[1], 0))
    except (ValueError, StopIteration) as error:
        raise _not_cosigns(place, "is not PKCS #8") from error
    numbers = [int.from_bytes(value, "big", signed=True) for tag, value in found if tag == 0x02]
    if (0x06, _SCRYPT_OID) in found:
        if len(numbers) < 3:
            raise _not_cosigns(place, "is not PKCS #8")
        _refuse_costly_scrypt(numbers[0], numbers[1], numbers[2], place)
    elif any(number > PBKDF2_ITERATIONS for number in numbers):
        raise _costly(f"{max(numbers)} iterations", place)


def _refuse_costly_scrypt(n: int, r: int, p: int, place: str) -> None:
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise _not_cosigns(place, f"has invalid scrypt parameters: N={n}, r={r}, p={p}")
    if 128 * r * (n + p) > SCRYPT_MEMORY or n * r * p > SCRYPT_WORK:
        raise _costly(f"scrypt with N={n}, r={r}, p={p}", place)


def _derive(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    # OpenSSL adds some blocks to N·r·128, and refuses more than maxmem.
    limit = SCRYPT_MEMORY + (1 << 20)
    try:
        return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=limit, dklen=_BOX_KEY)
    except ValueError as error:
        if "malloc failure" in str(error):  # OpenSSL's word for it; Python has no exception of its own.
            raise MemoryError from error
        raise


def _costly(what: str, place: str) -> UsageError:
    return UsageError(
        "key-derivation-costly",
        f"decrypting the key file needs {what}, which exceeds the limit",
        place=place,
        hint="use the original key file; this one looks like a denial-of-service attack",
    )


def _not_cosigns(place: str, how: str) -> UsageError:
    return UsageError(
        "key-malformed", f"the encrypted key {how}", place=place, hint="create a key with cosign generate-key-pair"
    )


# --- DER (X.690), minimal ---------------------------------------------------------------------------

_DEPTH = 8
"""Nesting in an AlgorithmIdentifier, at most: PBES2 has four levels."""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the (tag, content) of consecutive elements. Raises ValueError."""
    at = 0
    while at < len(data):
        if len(data) < at + 2:
            raise ValueError("unexpected end of data")
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("unexpected end of data")
        yield tag, data[at : at + size]
        at += size


def _leaves(data: bytes, depth: int) -> Iterator[tuple[int, bytes]]:
    """Yield all primitive elements, in order. Raises ValueError."""
    if depth > _DEPTH:
        raise ValueError("too deep")
    for tag, content in _elements(data):
        if tag & 0x20:
            yield from _leaves(content, depth + 1)
        else:
            yield tag, content
