"""Fetch intact content for a scrub from the store or other mirrors; limit its read rate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.digest import Digest
from pipeline.errors import RelbuildError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.references import media_type_of
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.oci.image_manifest import DOCUMENT_LIMIT
from pipeline.store import Store

STORE_SOURCE = "the store"

OTHER_REPOSITORIES_MOST = 200
"""Repositories of other names that are asked, at most: on a registry, each costs a request."""


@dataclass(frozen=True, slots=True)
class RepairSources:
    """Sources of intact content: `store`, which verifies it, then each of the mirrors `others`."""

    store: Store
    others: Sequence[Mirror] = ()

    def blob(self, descriptor: Descriptor, names: Iterable[str]) -> tuple[Path, str] | None:
        """Fetch an intact blob into the store; return its path there and its source, or None.

        `names`: repositories that need the blob.
        """
        if self.store.sound(descriptor.digest):
            return self.store.blob(descriptor.digest), STORE_SOURCE
        for other in self.others:
            for repository in _repositories(other, names):
                with contextlib.suppress(RelbuildError):
                    repository.fetch_blob(descriptor, self.store)
                    return self.store.blob(descriptor.digest), repository.url
        return None

    def manifest(self, digest: Digest, names: Iterable[str]) -> tuple[Manifest, str] | None:
        """Return a manifest or index, verified, and its source, or None. `names` as in `blob`."""
        if self.store.sound(digest):
            with contextlib.suppress(RelbuildError):
                data = self.store.read(digest, limit=DOCUMENT_LIMIT)
                media_type = media_type_of(data)
                if media_type is not None:
                    return Manifest(media_type, data), STORE_SOURCE
        for other in self.others:
            for repository in _repositories(other, names):
                with contextlib.suppress(RelbuildError):
                    manifest = repository.manifest(digest)
                    if manifest is not None:
                        return manifest, repository.url
        return None


def _repositories(mirror: Mirror, names: Iterable[str]) -> Iterator[Repository]:
    """Yield a mirror's repositories, those with `names` first."""
    tried: set[str] = set()
    with contextlib.suppress(RelbuildError):
        for name in (*names, *mirror.repositories()[:OTHER_REPOSITORIES_MOST]):
            if name not in tried:
                tried.add(name)
                with contextlib.suppress(RelbuildError):
                    yield mirror.repository(name)


def _seconds() -> float:
    return time.monotonic()


@dataclass(slots=True)
class ReadThrottle:
    """Limit of the average read rate to `rate` bytes a second (0: no limit)."""

    rate: int
    _since: float = field(default_factory=_seconds)
    _read: int = 0

    def wait(self, size: int) -> None:
        """Count `size` bytes that were read, and sleep if they came faster than `rate`."""
        if self.rate:
            self._read += size
            ahead = self._read / self.rate - (time.monotonic() - self._since)
            if ahead > 0:
                time.sleep(ahead)
