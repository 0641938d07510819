"""A certificate authority for tests: certificates of servers and clients, with any dates."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """An authority with a key of its own; `certificate` is its file."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.crt"
        built = self._builder(self._name, self._key.public_key(), -DAY, 3650 * DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate.write_bytes(self._signed(built))

    def issue(
        self,
        name: str,
        *,
        folder: Path | None = None,
        begins: datetime.timedelta = -DAY,
        ends: datetime.timedelta = 30 * DAY,
        key_file: str = "{}-key.pem",
        host: str = "localhost",
        hosts: Sequence[str] = (),
    ) -> tuple[Path, Path]:
        """A certificate for the host or client `name`; returns its file `NAME.pem` and its key's `NAME-key.pem`.
        `hosts`: those of a server with several."""
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = self._builder(subject, key.public_key(), begins, ends).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(one) for one in hosts or (host,)]), critical=False
        )
        certificate, key_path = folder / f"{name}.pem", folder / key_file.format(name)
        certificate.write_bytes(self._signed(built))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key_path

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime.timedelta, ends: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
