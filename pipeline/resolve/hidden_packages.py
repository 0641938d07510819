"""Say why modules hide a package."""

from __future__ import annotations

from pipeline.lazy_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HiddenPackage:
    """The reason why modules hide a package.

    `stream` is the package's own stream, which is not enabled; None for a package outside of modules. `enabled` is the
    stream that is enabled instead, or that has a package of the same name; None if there is none.
    """

    stream: str | None
    enabled: str | None

    def __str__(self) -> str:
        if self.stream is None:
            return f"hidden by module '{self.enabled}', which has packages of this name"
        if self.stream == self.enabled:
            return f"hidden: it belongs to another context of module '{self.stream}'"
        instead = f" ('{self.enabled}' is)" if self.enabled else ""
        return f"hidden: it belongs to module '{self.stream}', which is not enabled{instead}"

    @property
    def hint(self) -> str:
        """The hint for the error."""
        if self.stream is None:
            return "request the module's package, or set 'module_hotfixes: true' for the repository of the other one"
        return f"enable the stream: modules: ['{self.stream}']"
