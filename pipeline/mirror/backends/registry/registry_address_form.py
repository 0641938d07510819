"""The `registry://` and `registry+http://` address forms: parse, split, open the registry.

registry://HOST[:PORT]/NAMESPACE/NAME      HTTPS
registry+http://HOST[:PORT]/NAMESPACE/NAME plain HTTP
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address, AddressForm, names_no_repository
from pipeline.mirror.protocol import NAME
from pipeline.urls import parse_url, shown_url

if TYPE_CHECKING:
    from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror
    from pipeline.mirror.mirror_access import MirrorAccess
    from pipeline.transfer import KnownAnswer, TrafficCounts

SCHEMES = {"registry": "https", "registry+http": "http"}
"""Scheme of the address → scheme of the requests."""

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class RegistryRoot:
    """Parsed address of a registry and a namespace on it ("": all). `scheme`: one of SCHEMES."""

    scheme: str
    host: str
    namespace: str

    @classmethod
    def parse(cls, url: str) -> RegistryRoot:
        """Parse `SCHEME://HOST[:PORT]/NAMESPACE`. Raises UsageError `mirror-url`."""
        scheme, _, rest = url.partition("://")
        host, _, namespace = rest.partition("/")
        namespace = namespace.rstrip("/")
        if "@" in rest:
            raise _wrong(url, "pass credentials with `podman login`, not in the address")
        if scheme not in SCHEMES or not _HOST.fullmatch(host) or parse_url(f"{SCHEMES[scheme]}://{host}") is None:
            raise _wrong(url, "write it as registry://HOST[:PORT]/NAMESPACE")
        if namespace and not NAME.fullmatch(namespace):
            raise _wrong(url, "a namespace has lower-case letters and digits, with . _ - / between them")
        return cls(scheme, host.lower(), namespace)

    @property
    def base(self) -> str:
        """The base URL of requests."""
        return f"{SCHEMES[self.scheme]}://{self.host}"

    def full(self, name: str) -> str:
        """Return a repository's full name on the registry, with the namespace."""
        return f"{self.namespace}/{name}" if self.namespace else name

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.namespace}".rstrip("/")


def _wrong(url: str, hint: str) -> UsageError:
    return UsageError("mirror-url", f"invalid registry address: '{shown_url(url)}'", place=shown_url(url), hint=hint)


@dataclass(frozen=True, slots=True)
class RegistryForm(AddressForm):
    """The address form of registries, with one scheme."""

    @property
    def is_path(self) -> bool:
        """See `AddressForm`."""
        return False

    def normal(self, rest: str) -> str:
        """See `AddressForm`. Raises UsageError `mirror-url`."""
        RegistryRoot.parse(f"{self.prefix}{rest}")
        return rest

    def locate(self, address: Address, *, create: bool) -> tuple[Address, str]:
        """See `AddressForm`."""
        host, _, path = address.rest.partition("/")
        namespace, _, name = path.rpartition("/")
        if not name:
            raise names_no_repository(address, "registry://HOST/NAMESPACE/NAME")
        return Address(self, f"{host}/{namespace}" if namespace else host), name

    def mirror_of(self, address: Address) -> Address:
        """See `AddressForm`: without the last part of the path, which is the repository's name."""
        return Address(self, address.rest.rpartition("/")[0] or address.rest)

    @contextlib.contextmanager
    def open(
        self, address: Address, access: MirrorAccess, *, create: bool, name: str, signs: bool = False
    ) -> Iterator[RegistryMirror]:
        """See `AddressForm`. Sends no request yet."""
        from pipeline.mirror.backends.registry.registry_mirror import open_registry
        from pipeline.mirror.known_blobs import KnownInRun

        known = KnownInRun(address.url, access.store, access.clock)
        with open_registry(
            address.url,
            environment=access.environment,
            progress=access.progress,
            known=known,
            read_back=access.read_back,
            log=access.log,
        ) as registry:
            yield registry

    def can_ask_again(self, address: Address, environment: Mapping[str, str]) -> bool:
        """See `AddressForm`."""
        from pipeline.transfer.repeated_questions import can_be_asked

        return can_be_asked(RegistryRoot.parse(address.url).base, environment)

    def ask_again(
        self,
        address: Address,
        answers: Sequence[KnownAnswer],
        scopes: Sequence[str],
        environment: Mapping[str, str],
    ) -> Callable[[], TrafficCounts | None]:
        """See `AddressForm`."""
        from pipeline.transfer.repeated_questions import ask_again

        root = RegistryRoot.parse(address.url)
        return ask_again(root.base, answers, scopes, namespace=root.namespace, environment=environment)


REGISTRY = RegistryForm("registry://", "registry://HOST/NAMESPACE/NAME:TAG", "registry://HOST/NAMESPACE")
PLAIN_REGISTRY = RegistryForm("registry+http://", "", "")
