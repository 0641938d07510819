"""Data classes for a resolution: the chosen packages, their layers and reasons."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.package import Package


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why a package is in the image.

    `requested` (by = the request's text), `requires` (by = the NEVRA that needs it, `what` = the requirement),
    `recommends`, `supplements`, `local`.
    """

    kind: str
    by: str
    what: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One package of the resolution with the name of its layer and its reasons.

    The most direct reason is first.
    """

    package: Package
    layer: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """All packages of one platform and architecture, sorted by NEVRA.

    `order` is the NEVRAs in the order of the transaction (what is needed comes first), which is the order of
    scriptlets. `assumed` are the requirements that `assume-installed` satisfied. `warnings` are sentences for people.
    """

    platform: str
    arch: str
    chosen: tuple[Chosen, ...]
    order: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def layer(self, name: str) -> tuple[Package, ...]:
        """Return the packages of one layer, sorted by NEVRA."""
        return tuple(chosen.package for chosen in self.chosen if chosen.layer == name)
