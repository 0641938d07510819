"""Find the tags that a publication may leave alone, while it looks for blobs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import field

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.tag_moves import PUBLISH_CONCURRENCY, TagMover


@dataclass(slots=True)
class SettledTags:
    """Search in threads for the tags that need neither a move nor a renewal.

    `standing`: tags that pointed to `wanted` when the gate was asked. Settled are those of which that is signed,
    verified and young. Nothing is written. Use it in a `with` block, whose end awaits the threads.
    """

    mover: TagMover
    standing: Sequence[str]
    wanted: Digest
    _looking: dict[str, Future[int]] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(PUBLISH_CONCURRENCY, "settled"))

    def __enter__(self) -> SettledTags:
        for tag in self.standing:
            self._looking[tag] = self._pool.submit(self.mover.settled_until, tag, self.wanted)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def found(self) -> dict[str, int]:
        """Return the settled tags, and until when they are (milliseconds since the epoch).

        Raises as the repository does.
        """
        return {tag: until for tag, looking in self._looking.items() if (until := looking.result())}
