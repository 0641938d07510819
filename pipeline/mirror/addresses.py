"""How people name mirrors and what is on them.

    registry://HOST[:PORT]/NAMESPACE/NAME[:TAG][@sha256:…]     a registry, encrypted
    registry+http://HOST:PORT/NAMESPACE/NAME[:TAG][@sha256:…]  a registry, in plain text
    dir:PATH/NAME[:TAG][@sha256:…]                             a directory that a web server serves
    oci:PATH[:TAG][@sha256:…]                                  a layout, as skopeo names it

A mirror itself is named by the same without NAME, TAG and digest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.protocol import NAME, TAG
from pipeline.urls import parse_url, shown


class MirrorKind(StrEnum):
    """What a mirror is; the value is how its address begins."""

    REGISTRY = "registry://"
    PLAIN_REGISTRY = "registry+http://"
    DIRECTORY = "dir:"
    LAYOUT = "oci:"


@dataclass(frozen=True, slots=True)
class Address:
    """A place on a mirror. `rest` is what follows the kind, without tag and digest: host and path, or a path from the
    root, so that it names the same place in every process."""

    kind: MirrorKind
    rest: str
    tag: str = ""
    digest: Digest | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a relative path."""
        if self.kind in (MirrorKind.DIRECTORY, MirrorKind.LAYOUT) and not self.path.is_absolute():
            raise ValueError(f"'{self.rest}' is a relative path")

    @property
    def url(self) -> str:
        """Without tag and digest."""
        return f"{self.kind}{self.rest}"

    def __str__(self) -> str:
        return f"{self.url}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"

    @property
    def reference(self) -> Digest | str:
        """What is named there: the digest if one is given, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def path(self) -> Path:
        """For a directory or layout: where it is."""
        return Path(self.rest)

    @property
    def host(self) -> str:
        """For a registry: host and port."""
        return self.rest.partition("/")[0]

    @property
    def name(self) -> str:
        """For a registry: what follows the host."""
        return self.rest.partition("/")[2]


def is_address(text: str) -> bool:
    """Does it name a place on a mirror, and not a file or a recipe?"""
    return text.startswith(tuple(MirrorKind))


def parse_address(text: str) -> Address:
    """An address. A relative path in it begins at the working directory. Raises UsageError `address-malformed`."""
    kind = next((kind for kind in MirrorKind if text.startswith(kind)), None)
    if kind is None:
        raise _malformed(text, "it does not begin with registry://, registry+http://, dir: or oci:")
    rest, _, stated = text.removeprefix(kind).partition("@")
    try:
        digest = Digest.parse(stated) if stated else None
    except VerificationError:
        why = "what follows an '@' is a sha256 digest; names and passwords belong into `podman login`"
        raise _malformed(text, why) from None
    head, slash, last = rest.rpartition("/")
    last, colon, tag = (
        last.partition(":") if "/" in rest or kind in (MirrorKind.LAYOUT, MirrorKind.DIRECTORY) else (last, "", "")
    )
    if colon and not TAG.fullmatch(tag):
        raise _malformed(text, f"'{tag[:140]}' is no tag: letters, digits, _ . - and at most 128 of them")
    rest = f"{head}{slash}{last}".rstrip("/")
    if not rest:
        raise _malformed(text, "it names no place")
    if kind in (MirrorKind.REGISTRY, MirrorKind.PLAIN_REGISTRY):
        RegistryRoot.parse(f"{kind}{rest}")
    else:
        rest = str(Path(rest).absolute())
    return Address(kind, rest, tag, digest)


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(
        "address-malformed",
        f"'{shown(text)}' names no place on a mirror: {why}",
        hint="write registry://HOST/NAMESPACE/NAME:TAG, dir:PATH/NAME:TAG or oci:PATH:TAG",
    )


# --- a registry as where requests go ---------------------------------------------------------------

SCHEMES = {"registry": "https", "registry+http": "http"}
"""The scheme that people write → what is spoken."""

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class RegistryRoot:
    """A registry and the namespace in it (an empty text: all of it). `scheme` is one of SCHEMES."""

    scheme: str
    host: str
    namespace: str

    @classmethod
    def parse(cls, url: str) -> RegistryRoot:
        """Raises UsageError `mirror-url`."""
        scheme, _, rest = url.partition("://")
        host, _, namespace = rest.partition("/")
        namespace = namespace.rstrip("/")
        if "@" in rest:
            raise _wrong(url, "names and passwords do not belong into an address: use `podman login`")
        if scheme not in SCHEMES or not _HOST.fullmatch(host) or parse_url(f"{SCHEMES[scheme]}://{host}") is None:
            raise _wrong(url, "write it as registry://HOST[:PORT]/NAMESPACE")
        if namespace and not NAME.fullmatch(namespace):
            raise _wrong(url, "a namespace has small letters, digits, and . _ - / between them")
        return cls(scheme, host.lower(), namespace)

    @property
    def base(self) -> str:
        """Where requests go."""
        return f"{SCHEMES[self.scheme]}://{self.host}"

    def full(self, name: str) -> str:
        """A repository's name with the namespace, as the registry knows it."""
        return f"{self.namespace}/{name}" if self.namespace else name

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.namespace}".rstrip("/")


def _wrong(url: str, hint: str) -> UsageError:
    return UsageError("mirror-url", f"'{shown(url)}' is not the address of a registry", place=shown(url), hint=hint)
