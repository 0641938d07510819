"""The two tasks of a layer that is made: its tree, and then its blob."""

from __future__ import annotations

import threading
from dataclasses import field

from pipeline.layers.planned_layer import PlannedLayer, part_size
from pipeline.lazy_dataclasses import dataclass
from pipeline.progress import Progress, Task
from pipeline.trees import Part


@dataclass(slots=True)
class LayerProgress:
    """Progress of a layer; its methods are called by several threads.

    `unpacking` is the task of the tree, which has begun. That of the blob begins when the tree is kept.
    """

    plan: PlannedLayer
    progress: Progress
    unpacking: Task | None
    compressing: Task | None = None
    _assembled: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def placed(self, part: Part) -> None:
        """Advance the tree by a package."""
        if self.unpacking is not None:
            self.unpacking.advance(part_size(part))

    def kept(self, tar_size: int) -> None:
        """End the task of the tree, whose tar has `tar_size` bytes, and begin that of the blob."""
        self._finish(self.unpacking, f"{len(self.plan.composed.contents)} packages, {tar_size / 1e6:.1f} MB")
        self.unpacking = None
        running = self.progress.start("compress", self.plan.composed.name, total=self.plan.content_size, unit="bytes")
        with self._guard:
            self.compressing, size = running, self._assembled
        running.advance(size)

    def assembled(self, part: Part) -> None:
        """Advance the blob by a package; the tree may not be kept yet, and its task not be ended."""
        size = part_size(part)
        with self._guard:
            running = self.compressing
            if running is None:
                self._assembled += size
        if running is not None:
            running.advance(size)

    def read_back(self, blob_size: int) -> None:
        """End the task of the blob, which has `blob_size` bytes."""
        self._finish(self.compressing, f"{blob_size / 1e6:.1f} MB")
        self.compressing = None

    def fail(self) -> None:
        """End the task that has not ended, if there is one, as failed."""
        for left in (self.unpacking, self.compressing):
            if left is not None:
                self.progress.finish(left, failed=True)

    def _finish(self, running: Task | None, result: str) -> None:
        if running is not None:
            running.note(result)
            self.progress.finish(running)
