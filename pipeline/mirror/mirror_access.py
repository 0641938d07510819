"""Opening of the mirror or repository that an address names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.mirror.address import Address
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.progress import Progress
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class MirrorAccess:
    """Access to mirrors by their addresses.

    `environment` says where credentials and certificates are and how the network is reached; `clock` gives seconds
    since the epoch; `store` remembers what scrubs of registries found whole.
    """

    environment: Mapping[str, str]
    progress: Progress
    clock: Callable[[], float]
    store: Store | None = None

    def mirror(
        self, address: Address, *, create: bool = False, name: str = ""
    ) -> contextlib.AbstractContextManager[Mirror]:
        """Open the mirror at an address.

        `create`: a directory or layout that is not there is made, known to those who pull as `name` (`HOST/NAMESPACE`;
        "": the default, or what it is known as already).

        Raises UsageError where the address names no mirror.
        """
        return address.form.open(address, self, create=create, name=name)

    @contextlib.contextmanager
    def repository(self, address: Address, *, create: bool = False, write: bool = False) -> Iterator[Repository]:
        """Open the repository that an address names.

        Of a directory, the mirror that it lies in is found. `write`: something is to be put there, and prune spares
        what arrives meanwhile.
        """
        above, name = address.form.locate(address, create=create)
        with (
            self.mirror(above, create=create) as mirror,
            mirror.writing() if write else contextlib.nullcontext(),
        ):
            yield mirror.repository(name)
