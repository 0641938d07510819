"""From an address to the mirror or repository that it names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.mirror.addresses import Address, MirrorKind
from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror, find_root, open_directory
from pipeline.mirror.backends.layout.layout_mirror import LayoutMirror, open_layout
from pipeline.mirror.backends.registry.registry_mirror import RegistryMirror, open_registry
from pipeline.mirror.known_blobs import KnownInRun
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.progress import Progress
from pipeline.store import Store

AnyMirror = RegistryMirror | DirectoryMirror | LayoutMirror


@dataclass(frozen=True, slots=True)
class Way:
    """What is needed to reach mirrors: `environment` says where credentials and certificates are and how the network is
    reached; `clock` gives seconds since the epoch; `store` remembers what scrubs of registries found whole."""

    environment: Mapping[str, str]
    progress: Progress
    clock: Callable[[], float]
    store: Store | None = None

    @contextlib.contextmanager
    def mirror(self, address: Address, *, create: bool = False, name: str = "") -> Iterator[AnyMirror]:
        """The mirror itself. `create`: a directory or layout that is not there is made, known to those who pull as
        `name` (`HOST/NAMESPACE`; "": the default, or what it is known as already).

        Raises UsageError where the address names no mirror.
        """
        match address.kind:
            case MirrorKind.REGISTRY | MirrorKind.PLAIN_REGISTRY:
                known = KnownInRun(address.url, self.store, self.clock)
                with open_registry(
                    address.url, environment=self.environment, progress=self.progress, known=known
                ) as registry:
                    yield registry
            case MirrorKind.DIRECTORY:
                yield open_directory(address.path, create=create, clock=self.clock, host=name or None)
            case MirrorKind.LAYOUT:
                yield open_layout(address.path, create=create, identity=name or None)

    @contextlib.contextmanager
    def repository(self, address: Address, *, create: bool = False, write: bool = False) -> Iterator[Repository]:
        """The repository that an address names; of a directory, the mirror that it lies in is found. `write`: something
        is to be put there, and prune spares what arrives meanwhile."""
        if address.kind is MirrorKind.LAYOUT:
            with self.mirror(address, create=create) as layout, _held(layout, write):
                yield layout.repository("")
            return
        if address.kind is MirrorKind.DIRECTORY:
            found = find_root(address.path)
            if found is None and create:
                found = (address.path.parent, address.path.name)
            if found is None or not found[1]:
                raise _names_none(address, "dir:PATH-OF-THE-MIRROR/NAME")
            root, name = found
            with self.mirror(Address(address.kind, str(root)), create=create) as directory, _held(directory, write):
                yield directory.repository(name)
            return
        namespace, _, name = address.name.rpartition("/")
        if not name:
            raise _names_none(address, "registry://HOST/NAMESPACE/NAME")
        above = Address(address.kind, f"{address.host}/{namespace}" if namespace else address.host)
        with self.mirror(above) as registry, _held(registry, write):
            yield registry.repository(name)


def _held(mirror: Mirror, write: bool) -> contextlib.AbstractContextManager[None]:
    return mirror.writing() if write else contextlib.nullcontext()


def _names_none(address: Address, form: str) -> UsageError:
    return UsageError("address-malformed", f"'{address}' names no repository on a mirror", hint=f"write {form}")
