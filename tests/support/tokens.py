"""Certificates and a token server, as a registry with `auth: token` wants them (the token authentication of the
distribution project): real signatures, real scopes, real expiry."""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its certificate, which it signed itself, for the loopback."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> Identity:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {secrets.token_hex(4)}")])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Certificate and key as PEM files."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / "it.crt", folder / "it.key"
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TokenServer:
    """Issues tokens for what is asked, to `user` with `password`, except for what is in `forbidden` (`NAME:ACTION`).
    `lasts`: seconds that a token holds. `asked`: the scopes of each request."""

    identity: Identity
    user: str = "user"
    password: str = "secret"
    lasts: int = 300
    forbidden: set[str] = field(default_factory=set)
    asked: list[list[str]] = field(default_factory=list)
    realm: str = ""
    host: str = ""

    def issue(self, scopes: list[str]) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [one for one in actions.split(",") if f"{name}:{one}" not in self.forbidden]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": "it", "sub": self.user, "aud": "registry", "iat": now, "nbf": now - 1, "exp": now + self.lasts}
        claims |= {"jti": secrets.token_hex(8), "access": access}
        chain = [base64.b64encode(self.identity.certificate.public_bytes(Encoding.DER)).decode()]
        parts = ({"typ": "JWT", "alg": "RS256", "x5c": chain}, claims)
        signed = ".".join(_b64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_b64(self.identity.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@contextlib.contextmanager
def token_server(tls: tuple[Path, Path] | None = None) -> Iterator[TokenServer]:
    """A TokenServer on the loopback for as long as the block lasts. `tls`: its certificate and key."""
    tokens = TokenServer(Identity.make())

    def basic() -> str:
        return "Basic " + base64.b64encode(f"{tokens.user}:{tokens.password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            tokens.asked.append(scopes)
            allowed = self.headers.get("Authorization") == basic()
            body = json.dumps({"token": tokens.issue(scopes), "expires_in": tokens.lasts} if allowed else {}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tokens.host = f"127.0.0.1:{server.server_port}"
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    tokens.realm = f"http{'s' if tls else ''}://{tokens.host}/token"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield tokens
    finally:
        server.shutdown()
        server.server_close()
