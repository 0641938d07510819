"""Open the mirror or repository at an address, with environment, clock and store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.address import Address
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.transfer import QuestionLog


@dataclass(frozen=True, slots=True)
class MirrorAccess:
    """Settings with which mirrors are opened.

    `environment` has the paths of credentials and certificates, and proxies; `clock` returns seconds since the epoch;
    `store` records the blobs of registries that scrubs found intact; `read_back`: what is put on a registry or found
    there is read before it counts; `log` notes what registries are asked.
    """

    environment: Mapping[str, str]
    progress: Progress
    clock: Callable[[], float]
    store: Store | None = None
    read_back: bool = False
    log: QuestionLog | None = None

    def mirror(
        self, address: Address, *, create: bool = False, name: str = "", signs: bool = False
    ) -> contextlib.AbstractContextManager[Mirror]:
        """Open the mirror at an address.

        `create`: make a directory or layout that is missing. `name`: the `HOST/NAMESPACE` by which clients pull from it
        ("": the default, or the one that it has already). `signs`: its name is signed, as where `create` is given: it
        must be the one that the store remembers.

        Raises UsageError if there is no mirror at the address.
        """
        return address.form.open(address, self, create=create, name=name, signs=signs or create)

    @contextlib.contextmanager
    def repository(self, address: Address, *, create: bool = False, write: bool = False) -> Iterator[Repository]:
        """Open the repository at an address, on the mirror that contains it.

        `write`: its name is signed (see `mirror`); hold the publishing lock, so that nothing is pruned meanwhile.
        """
        above, name = address.form.locate(address, create=create)
        with (
            self.mirror(above, create=create, signs=write) as mirror,
            mirror.writing() if write else contextlib.nullcontext(),
        ):
            yield mirror.repository(name)
