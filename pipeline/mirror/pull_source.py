"""Mirrors that are folders of this machine, as `relbuild serve` serves them: to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from pipeline.digest import Digest
from pipeline.model.manifests import Manifest, Referrer


class PullableRepository(Protocol):
    """A repository as it is served."""

    def manifest(self, reference: Digest | str) -> Manifest | None: ...

    def tags(self) -> tuple[str, ...]: ...

    def referrers(self, subject: Digest) -> tuple[Referrer, ...]: ...

    def open_blob(self, digest: Digest) -> BinaryIO | None: ...


@dataclass(frozen=True, slots=True)
class PullSource:
    """A mirror as it is served.

    The names of all repositories, and one by its name (None if there is none).
    """

    names: Callable[[], tuple[str, ...]]
    repository: Callable[[str], PullableRepository | None]
