"""How people name a registry: `registry://HOST[:PORT]/NAMESPACE`, or without TLS, said out loud, `registry+http://…`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.mirror.repository import NAME

SCHEMES = {"registry": "https", "registry+http": "http"}
"""The scheme that people write → what is spoken."""

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Address:
    """A registry and the namespace in it (an empty text: all of it). `scheme` is one of SCHEMES."""

    scheme: str
    host: str
    namespace: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises UsageError `mirror-url`."""
        scheme, _, rest = url.partition("://")
        host, _, namespace = rest.partition("/")
        namespace = namespace.rstrip("/")
        if "@" in rest:
            raise _wrong(
                url.rpartition("@")[2], "names and passwords do not belong into an address: use `podman login`"
            )
        if scheme not in SCHEMES or not _HOST.fullmatch(host):
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
    return UsageError("mirror-url", f"'{url[:200]}' is not the address of a registry", place=url[:200], hint=hint)
