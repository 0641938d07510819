"""A layer that is being built: its tree is known at once, its blob when it was packed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import field
from typing import Self

from pipeline.digest import DiffId
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Descriptor, Layer


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer by its tree; `reused`: it was in the store.

    `blob` is what it is packed into. `contents` and `tar_size` as in `Layer`. What is in `after` is called when the
    packing has ended, and all its blobs were read back and are what their trees are.
    """

    name: str
    diff_id: DiffId
    tar_size: int
    contents: tuple[str, ...]
    reused: bool
    blob: Future[Descriptor]
    after: list[Callable[[], None]] = field(default_factory=list)
    written: Descriptor | None = None
    """The blob, if it was there before it is read back."""

    @classmethod
    def packed(cls, layer: Layer, *, reused: bool) -> Self:
        """Return a layer whose blob is known."""
        blob: Future[Descriptor] = Future()
        blob.set_result(layer.blob)
        return cls(layer.name, layer.diff_id, layer.tar_size, layer.contents, reused, blob)

    @property
    def layer(self) -> Layer:
        """The layer with its blob. Waits until that was read back; raises what its packing raised."""
        return Layer(self.name, self.diff_id, self.blob.result(), self.tar_size, self.contents)

    @property
    def confirmed(self) -> bool:
        """True when its blob was read back, without an error."""
        return self.blob.done() and not self.blob.cancelled() and self.blob.exception() is None


def packed_layer(layer: Layer | BuiltLayer) -> Layer:
    """Return a layer with its blob, for who compares that with its digest and diff_id.

    A blob that was written is not waited for until it was read back too; one that is still packed is.
    """
    if not isinstance(layer, BuiltLayer):
        return layer
    if layer.written is None or layer.blob.done():
        return layer.layer
    return Layer(layer.name, layer.diff_id, layer.written, layer.tar_size, layer.contents)
