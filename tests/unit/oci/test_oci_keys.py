"""Keys: which files are read, which are refused and how, and that nothing secret is told."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as some

from pipeline.errors import UsageError
from pipeline.oci import SigningKey, generate_key, load_signing_key, load_verifying_key, private_key
from pipeline.oci.private_key import COSIGN_LABELS, SCRYPT_MEMORY, SCRYPT_N
from pipeline.oci.signing_keys import KEY_LIMIT
from pipeline.progress import QUIET
from tests.support.cheap_keys import cheap_key
from tests.support.signing_examples import PRIVATE

PASSWORD = b"a password that nobody guesses"

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, SEC1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
SEALED = serialization.BestAvailableEncryption(PASSWORD)

EC = ec.derive_private_key(0x7E57, ec.SECP256R1())
ENCRYPTED = cheap_key(PASSWORD)[0]


def password() -> bytes:
    return PASSWORD


def refused(code: str, load: Callable[..., object], *words: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(*words)
    assert caught.value.code == code
    problem = caught.value.problems[0]
    assert problem.hint and problem.place
    assert PASSWORD.decode() not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        EC.private_bytes(PEM, PKCS8, PLAIN),
        EC.private_bytes(PEM, PKCS8, SEALED),
        EC.private_bytes(PEM, SEC1, PLAIN),
        EC.private_bytes(PEM, SEC1, SEALED),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + EC.private_bytes(PEM, SEC1, PLAIN),
    ],
    ids=["pkcs8", "pkcs8-encrypted", "sec1", "sec1-encrypted", "sec1-after-parameters"],
)
def test_the_forms_that_people_have_give_the_same_key(data: bytes) -> None:
    key = load_signing_key(data, password)
    assert key.public.der == EC.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert key.public == load_verifying_key(data, password) == load_verifying_key(key.public.pem)
    assert key.public.verifies(key.sign(b"what is signed"), b"what is signed")
    assert not key.public.verifies(key.sign(b"what is signed"), b"what is not")


def test_what_openssl_encrypts_with_scrypt_is_read() -> None:
    done = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-scrypt", "-passout", f"pass:{PASSWORD.decode()}"],
        input=EC.private_bytes(PEM, PKCS8, PLAIN),
        stdout=subprocess.PIPE,
        check=True,
    )
    assert load_signing_key(done.stdout, password) == load_signing_key(PRIVATE)


def test_an_rsa_key_in_its_older_public_form_is_read() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    older = public.public_bytes(PEM, serialization.PublicFormat.PKCS1)
    assert load_verifying_key(older).pem == public.public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_that_is_made_here_opens_with_its_password_under_both_of_cosigns_labels() -> None:
    private, public = generate_key(PASSWORD)
    assert private.startswith(f"-----BEGIN {COSIGN_LABELS[0]}-----\n".encode())
    assert max(map(len, private.splitlines())) <= 64
    older = private.replace(COSIGN_LABELS[0].encode(), COSIGN_LABELS[1].encode())
    for form in (private, older):
        assert load_signing_key(form, password).public.pem == public
    assert generate_key(PASSWORD)[1] != public


def test_signing_twice_gives_the_same_bytes() -> None:
    for key in (load_signing_key(PRIVATE), rsa_key(2048)):
        assert key.sign(b"the same") == key.sign(b"the same") != key.sign(b"another")


def rsa_key(bits: int) -> SigningKey:
    return load_signing_key(rsa.generate_private_key(65537, bits).private_bytes(PEM, SEC1, PLAIN))


def test_the_nonce_is_the_one_of_rfc_6979() -> None:
    """Its appendix A.2.5, P-256 with SHA-256, message `sample`."""
    secret = int("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721", 16)
    key = load_signing_key(ec.derive_private_key(secret, ec.SECP256R1()).private_bytes(PEM, PKCS8, PLAIN))
    assert (
        key.sign(b"sample")
        .hex()
        .upper()
        .startswith("3046022100EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716")
    )


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA P-384"),
        (ec.generate_private_key(ec.SECP521R1()), "ECDSA P-521"),
        (ec.generate_private_key(ec.SECP256K1()), "ECDSA secp256k1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (rsa.generate_private_key(65537, 1024), "RSA 1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_of_which_verifiers_disagree_are_refused_by_name(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, name: str
) -> None:
    private = key.private_bytes(PEM, PKCS8, PLAIN)
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for load, data in ((load_signing_key, private), (load_verifying_key, private), (load_verifying_key, public)):
        assert f"the key is {name}," in str(refused("key-kind", load, data))


@pytest.mark.parametrize("form", ["pkcs8", "sec1", "cosign"])
def test_a_password_that_is_wrong_or_missing_is_said(form: str) -> None:
    data = {
        "pkcs8": EC.private_bytes(PEM, PKCS8, SEALED),
        "sec1": EC.private_bytes(PEM, SEC1, SEALED),
        "cosign": ENCRYPTED,
    }[form]
    refused("key-password-missing", load_signing_key, data)
    refused("key-password-wrong", load_signing_key, data, lambda: b"guessed")


def test_a_plain_key_asks_for_no_password() -> None:
    def asked() -> bytes:
        raise AssertionError("nobody was to be asked")

    load_signing_key(PRIVATE, asked)


def test_what_is_not_a_private_key_is_said() -> None:
    public = load_signing_key(PRIVATE).public.pem
    assert "not a private key" in str(refused("key-not-private", load_signing_key, public))
    certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for load in (load_signing_key, load_verifying_key):
        assert "this is a certificate" in str(refused("key-malformed", load, certificate))
    for data in (b"", b"a page", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 70_000):
        refused("key-malformed", load_signing_key, data)


def test_files_are_bounded_and_those_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    refused("key-unreadable", load_signing_key, tmp_path / "missing")
    refused("key-unreadable", load_verifying_key, tmp_path)
    (tmp_path / "large").write_bytes(PRIVATE + b" " * KEY_LIMIT)
    refused("key-malformed", load_signing_key, tmp_path / "large")
    refused("key-malformed", load_signing_key, Path("/dev/zero"))


class _Warned:
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.start, self.finish = QUIET.start, QUIET.finish

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_a_private_key_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    path = tmp_path / "key"
    path.write_bytes(PRIVATE)
    path.chmod(mode)
    progress = _Warned()
    load_signing_key(path, progress=progress)
    assert bool(progress.warnings) == warned
    path.write_bytes(load_signing_key(PRIVATE).public.pem)
    path.chmod(0o644)
    progress = _Warned()
    load_verifying_key(path, progress=progress)
    assert progress.warnings == [], "a public key may be read by all"


def test_nothing_secret_is_told() -> None:
    key = load_signing_key(PRIVATE)
    secret = EC.private_bytes(DER, PKCS8, PLAIN)
    told = repr(key) + str(key) + repr(key.public)
    assert str(key.public.fingerprint) in told
    for form in (secret.hex(), base64.b64encode(secret).decode(), "7e57", repr(EC)):
        assert form not in told


def sealed(**changes: object) -> bytes:
    """A key in cosign's form whose parameters of scrypt are others."""
    lines = ENCRYPTED.splitlines()
    document = json.loads(base64.b64decode(b"".join(lines[1:-1])))
    document["kdf"]["params"].update({"N": SCRYPT_N} | changes)
    return b"\n".join([lines[0], base64.b64encode(json.dumps(document).encode()), lines[-1]])


@pytest.mark.parametrize(
    "changes",
    [
        {"N": 1 << 30},
        {"N": SCRYPT_MEMORY // 128},
        {"r": 1 << 20},
        {"p": 1 << 16},
        {"N": 2, "r": 1, "p": 1 << 24},
        {"N": 1 << 62},
    ],
    ids=str,
)
def test_a_key_file_cannot_ask_for_the_machine(changes: dict[str, int]) -> None:
    refused("key-derivation-costly", load_signing_key, sealed(**changes), password)


@pytest.mark.parametrize("changes", [{"N": 3}, {"N": 0}, {"N": 1}, {"r": 0}, {"p": 0}, {"N": -2}, {"N": "x"}], ids=str)
def test_parameters_that_scrypt_does_not_have_are_refused(changes: dict[str, object]) -> None:
    refused("key-malformed", load_signing_key, sealed(**changes), password)


def der(tag: int, content: bytes) -> bytes:
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + size + content


def number(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


PBES2 = der(6, bytes.fromhex("2a864886f70d01050d"))
PBKDF2 = der(6, bytes.fromhex("2a864886f70d01050c"))
SCRYPT = der(6, bytes.fromhex("2b06010401da47040b"))
AES = der(0x30, der(6, bytes.fromhex("60864801650304012a")) + der(4, bytes(16)))


def pkcs8(derivation: bytes) -> bytes:
    body = der(0x30, der(0x30, PBES2 + der(0x30, derivation + AES)) + der(4, bytes(48)))
    text = base64.b64encode(body)
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + text + b"\n-----END ENCRYPTED PRIVATE KEY-----\n"


def test_a_pkcs8_file_cannot_ask_for_the_machine_either() -> None:
    slow = der(0x30, PBKDF2 + der(0x30, der(4, bytes(8)) + number(1 << 40)))
    large = der(0x30, SCRYPT + der(0x30, der(4, bytes(8)) + number(1 << 30) + number(8) + number(1)))
    less = der(0x30, SCRYPT + der(0x30, der(4, bytes(8)) + number(1 << 22) + number(8) + number(1)))
    for derivation in (slow, large, less):
        refused("key-derivation-costly", load_signing_key, pkcs8(derivation), password)
    modest = der(0x30, PBKDF2 + der(0x30, der(4, bytes(8)) + number(2048)))
    refused("key-password-wrong", load_signing_key, pkcs8(modest), password)


LABELS = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "EC PRIVATE KEY", "PUBLIC KEY", *COSIGN_LABELS)


@given(some.sampled_from(LABELS), some.binary(max_size=200))
def test_whatever_a_file_holds_is_a_key_or_an_error_that_is_told(label: str, body: bytes) -> None:
    text = base64.b64encode(body)
    data = f"-----BEGIN {label}-----\n".encode() + text + f"\n-----END {label}-----\n".encode()
    for load in (load_signing_key, load_verifying_key):
        with pytest.raises(UsageError):
            load(data, password)


def test_too_little_memory_for_a_password_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise ValueError("[digital envelope routines] malloc failure")

    monkeypatch.setattr(private_key.hashlib, "scrypt", refuse)
    with pytest.raises(MemoryError):
        generate_key(b"x")
