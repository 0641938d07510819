"""Interface of local mirrors for `relbuild serve`: repositories, manifests, tags, blobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.manifests import Manifest, Referrer


class PullableRepository(Protocol):
    """The part of a `Repository` that is served, with blobs as open files."""

    def manifest(self, reference: Digest | str) -> Manifest | None: ...

    def tags(self) -> tuple[str, ...]: ...

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]: ...

    def open_blob(self, digest: Digest) -> BinaryIO | None: ...


@dataclass(frozen=True, slots=True)
class PullSource:
    """A mirror as it is served.

    `names` returns the names of all repositories, `repository` one by its name (None if there is none).
    """

    names: Callable[[], tuple[str, ...]]
    repository: Callable[[str], PullableRepository | None]
