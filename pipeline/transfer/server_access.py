"""Find, read and check a repository's client certificate; its CA, credentials and proxy."""

from __future__ import annotations

import glob
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.beneath import read_file
from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.credentials import Credentials

if TYPE_CHECKING:
    import ssl

CERTIFICATE_LIMIT = 4 << 20
"""Bytes of a file with a client certificate: an entitlement certificate that lists all of a vendor's content has some
hundred KiB."""

CERTIFICATES_MOST = 1000
"""Files matching a pattern that are examined: a folder of entitlements has one pair for each subscription."""

_KEY_SUFFIX = "-key"
"""Suffix by which subscription-manager names the key's file: `1234.pem`, `1234-key.pem`."""

Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate: its file, its key's, and its validity in seconds since the epoch."""

    certificate: Path
    key: Path
    begins: int
    ends: int

    def __str__(self) -> str:
        return f"{self.certificate} (valid until {day(self.ends)})"

    def load(self, context: ssl.SSLContext) -> None:
        """Load it into `context`. Raises EnvironmentLacking `client-certificate-malformed`."""
        try:
            # Never prompts for a password: a nightly run has no terminal.
            context.load_cert_chain(str(self.certificate), str(self.key), password="")
        except (OSError, ValueError) as error:  # SSLError is an OSError: the key does not match, or has a password
            raise _malformed(self.certificate, f"it does not work with the key {self.key}: {error}") from error


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """The certificates, credentials and proxy of a client.

    `ca_file`: authorities to trust instead of the machine's. `authorization`: values of that header, for these origins
    alone; `negotiate`: origins that get one made of the person's Kerberos ticket. `proxy`: URL of a proxy for all
    requests, with `proxy_credentials`.
    """

    ca_file: Path | None = None
    certificate: ClientCertificate | None = None
    authorization: tuple[tuple[Origin, str], ...] = field(default=(), repr=False)
    negotiate: tuple[Origin, ...] = ()
    proxy: str | None = field(default=None, repr=False)
    proxy_credentials: Credentials | None = field(default=None, repr=False)

    @property
    def logs_in(self) -> bool:
        """True if some origin is told who asks."""
        return bool(self.authorization or self.negotiate)


def find_client_certificate(certificate: str, key: str, *, now: float | None) -> ClientCertificate:
    """Find the client certificate at a path, or the newest valid one that a pattern matches.

    `key` is the path of its key; empty, or a pattern, for the file that has the certificate's name with `-key`, else
    the certificate's own file. `now`: seconds since the epoch, None to take any date. Raises EnvironmentLacking
    `client-certificate-missing`, `client-certificate-malformed`, `client-certificate-expired`.
    """
    if not _is_pattern(certificate):
        return _valid(_read(Path(certificate), _key_of(Path(certificate), key)), now)
    names = sorted(glob.glob(certificate))[:CERTIFICATES_MOST]  # noqa: PTH207  the pattern is absolute
    paths = [Path(name) for name in names if not Path(name).stem.endswith(_KEY_SUFFIX)]
    if not paths:
        raise _missing(certificate, "no file matches it")
    found: list[ClientCertificate] = []
    failures: list[EnvironmentLacking] = []
    for path in paths:
        try:
            found.append(_valid(_read(path, _key_of(path, key)), now))
        except EnvironmentLacking as error:
            failures.append(error)
    if not found:
        raise next((one for one in failures if one.code == "client-certificate-expired"), failures[0])
    return max(found, key=lambda one: (one.begins, one.ends, str(one.certificate)))


def day(seconds: int) -> str:
    """Return a date for messages: `2026-11-27`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _key_of(certificate: Path, key: str) -> Path:
    if key and not _is_pattern(key):
        return Path(key)
    beside = certificate.with_name(f"{certificate.stem}{_KEY_SUFFIX}{certificate.suffix}")
    return beside if key or beside.exists() else certificate


def _read(certificate: Path, key: Path) -> ClientCertificate:
    from cryptography.x509 import InvalidVersion, load_pem_x509_certificate

    for path in dict.fromkeys((key, certificate)):
        try:
            data = read_file(path, CERTIFICATE_LIMIT)
        except (OSError, ValueError) as error:
            raise _missing(str(path), str(error)) from error
    try:
        parsed = load_pem_x509_certificate(data)
        begins, ends = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    except (ValueError, OverflowError, InvalidVersion) as error:
        raise _malformed(certificate, f"it holds no certificate in PEM form: {str(error)[:200]}") from error
    return ClientCertificate(certificate, key, int(begins), int(ends))


def _valid(found: ClientCertificate, now: float | None) -> ClientCertificate:
    if now is None or found.begins <= now <= found.ends:
        return found
    when = f"expired on {day(found.ends)}" if now > found.ends else f"is not valid before {day(found.begins)}"
    raise EnvironmentLacking(
        "client-certificate-expired",
        f"the client certificate '{found.certificate}' {when}",
        place=str(found.certificate),
        hint="get a new one (for Red Hat's: `subscription-manager refresh`), or check the machine's clock",
    )


def _missing(path: str, why: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "client-certificate-missing",
        f"the client certificate or its key '{path}' cannot be read: {why}",
        place=path,
        hint="copy it from where the machine is registered, or name the files with sslclientcert and sslclientkey",
    )


def _malformed(path: Path, why: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "client-certificate-malformed",
        f"the client certificate '{path}' cannot be used: {why}",
        place=str(path),
        hint="name the key that belongs to it with sslclientkey; keys with a password cannot be used",
    )
