"""Find registry credentials in the auth files of podman and docker and by helper programs.

The files are containers-auth.json(5) and docker's `config.json`, which name the helpers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.errors import EnvironmentLacking
from pipeline.lazy_dataclasses import dataclass
from pipeline.transfer.token_servers import TokenServers
from pipeline.urls import DEFAULT_PORTS

CREDENTIALS_FILE_LIMIT = 1 << 20
"""Bytes of an auth file; one with some hundred registries has far fewer."""

HELPER_TIMEOUT = 60.0
"""Seconds for a credential helper: some ask a server, or a person to unlock a key ring."""

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PORT = re.compile(r":(\d{1,5})$")
_NOT_FOUND = "credentials not found"
"""Message of helpers without credentials for a server (docker-credential-helpers, `errCredentialsNotFound`)."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, or an identity token that an earlier login returned instead."""

    user: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of the Authorization header for Basic authentication (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class CredentialStore:
    """Credentials from auth files, which are read on demand; results are cached in memory."""

    def __init__(self, files: Sequence[Path], environment: Mapping[str, str]) -> None:
        self.files = tuple(files)
        self.token_servers = TokenServers.of(environment)
        self._environment = dict(environment)
        self._known: dict[tuple[str, bool], Credentials | None] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> CredentialStore:
        """Return the store of the auth files that podman and docker read.

        Only `$REGISTRY_AUTH_FILE` if it is set, else podman's of this session, podman's and docker's of the user.
        Raises UsageError `token-servers-malformed`.
        """
        named = environment.get("REGISTRY_AUTH_FILE")
        if named:
            return cls([Path(named)], environment)
        home, session = environment.get("HOME"), environment.get("XDG_RUNTIME_DIR")
        config = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
        docker = environment.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else None)
        files = [Path(folder, "containers", "auth.json") for folder in (session, config) if folder]
        files += [Path(docker, "config.json")] if docker else []
        return cls(files, environment)

    def find(self, host: str, repository: str = "", *, plain: bool = False) -> Credentials | None:
        """Find the credentials for a repository or namespace at `HOST[:PORT]`; None if missing.

        In each file: the host's own helper (`credHelpers`), the entry with the longest key that is the repository,
        a namespace above it, or the host, and the helper for all hosts (`credsStore`).

        `plain`: they would be sent without TLS. Then only those count whose key begins with `http://` or names another
        port than 443: all others may have been kept for a registry with TLS. Raises EnvironmentLacking
        `credentials-unreadable`, `credential-helper-failed`, `credentials-need-tls` where there are no others.
        """
        place = f"{host}/{repository}".rstrip("/")
        with self._lock:
            if (place, plain) not in self._known:
                self._known[place, plain] = self._in_files(host, place, plain)
            return self._known[place, plain]

    def _in_files(self, host: str, place: str, plain: bool) -> Credentials | None:
        withheld = None
        for path in self.files:
            for found, sendable in self._in_file(path, host, place, plain):
                if sendable or not plain:
                    return found
                withheld = withheld or path
        if withheld is None:
            return None
        raise EnvironmentLacking(
            "credentials-need-tls",
            f"the credentials for {host} in '{withheld}' are for TLS, and not sent over plain HTTP",
            place=host,
            hint=f"use registry://{host}; if they may be sent unencrypted, keep them in that file under 'http://{host}'",
        )

    def _in_file(self, path: Path, host: str, place: str, plain: bool) -> Iterator[tuple[Credentials, bool]]:
        """Yield the credentials in a file, the best first, and whether they may be sent without TLS."""
        document = _document(path)
        helper = _object(document.get("credHelpers")).get(host)
        if isinstance(helper, str) and helper:
            kept = self._from_helper(helper, host, path)
            if kept is not None:
                yield kept, _names_plain_port(host)
            return
        auths = _object(document.get("auths"))
        named = sorted(auths, key=lambda key: key.startswith("http://") == plain)  # the last of equal keys counts
        entries = {_normal(key): (key, auths[key]) for key in named}
        for key in _keys(place):
            written, value = entries.get(key, (key, None))
            found = _entry(_object(value), path, key)
            if found is not None:
                plainly = not written.startswith("https://") and _names_plain_port(key)
                yield found, plainly or written.startswith("http://")
        store = document.get("credsStore")
        kept = self._from_helper(store, host, path) if isinstance(store, str) and store else None
        if kept is not None:
            yield kept, _names_plain_port(host)

    def _from_helper(self, name: str, host: str, path: Path) -> Credentials | None:
        """Run `docker-credential-NAME get`: the server on standard input, JSON on standard output."""
        program = f"docker-credential-{name}"
        if not _HELPER.fullmatch(name):
            raise _unreadable(path, f"'{name[:80]!r}' is not a credential helper's name")
        from pipeline.process import run  # Few logins are kept by a program.

        done = run(
            [program, "get"],
            timeout=HELPER_TIMEOUT,
            stdin=host.encode(),
            environment=self._environment,
            check=False,
            output_limit=CREDENTIALS_FILE_LIMIT,
        )
        if done.status == 0 and not done.timed_out:
            try:
                answer = _object(json.loads(done.stdout))
            except (ValueError, RecursionError):
                answer = {}
            user, secret = answer.get("Username"), answer.get("Secret")
            if isinstance(user, str) and isinstance(secret, str):
                return Credentials("", identity_token=secret) if user == "<token>" else Credentials(user, secret)
        elif _NOT_FOUND in done.stdout.decode(errors="replace").lower():
            return None
        how = "did not end in time" if done.timed_out else f"ended with status {done.status}"
        raise EnvironmentLacking(
            "credential-helper-failed",
            f"the credential helper '{program}' (from {path}) returned no credentials for {host}: it {how}",
            place=host,
            hint=f"run `echo {host} | {program} get` yourself, or log in again",
        )


def _keys(place: str) -> Iterator[str]:
    """Yield `HOST/REPOSITORY`, then every namespace above it, and last the host."""
    while place:
        yield place
        place = place.rpartition("/")[0]


def _names_plain_port(key: str) -> bool:
    """Return whether a key `HOST[:PORT][/…]` names a port, and not that of https."""
    port = _PORT.search(key.partition("/")[0])
    return port is not None and int(port.group(1)) != DEFAULT_PORTS["https"]


def _normal(key: str) -> str:
    """Normalise a key of `auths`: docker's old ones are URLs with the API's version as path."""
    key, url = re.subn(r"^https?://", "", key)
    return re.sub(r"/v[12]$", "", key.rstrip("/")) if url else key.rstrip("/")


def _entry(entry: Mapping[str, object], path: Path, key: str) -> Credentials | None:
    """Parse an entry of `auths`; None for an empty one, whose credentials a helper has."""
    token, packed = entry.get("identitytoken"), entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(packed, str) and packed:
        try:
            user, colon, secret = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon, secret = "", ""
        if not colon:
            raise _unreadable(path, f"the `auth` of '{key}' is not base64 of USER:PASSWORD")
        password = secret.rstrip("\0")  # docker pads it with NULs
    if isinstance(token, str) and token:
        return Credentials(user if isinstance(user, str) else "", identity_token=token)
    return Credentials(user, password) if isinstance(user, str) and isinstance(password, str) else None


def _document(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(CREDENTIALS_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise _unreadable(path, str(error)) from error
    if len(data) > CREDENTIALS_FILE_LIMIT:
        raise _unreadable(path, f"it has more than {CREDENTIALS_FILE_LIMIT} bytes")
    try:
        value = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"it is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise _unreadable(path, "it is not a JSON object")
    return value


def _object(value: object) -> Mapping[str, object]:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def _unreadable(path: Path, text: str) -> EnvironmentLacking:
    return EnvironmentLacking(
        "credentials-unreadable",
        f"the credentials file '{path}' cannot be read: {text}",
        place=str(path),
        hint="log in again with `podman login` or `skopeo login`, or set REGISTRY_AUTH_FILE to another file",
    )
