"""Podman as a launcher (podman-run(1), podman-load(1)).

Proved by tests with a rootful Podman 4.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.container_engine import ContainerEngine


@dataclass(frozen=True, slots=True)
class Podman(ContainerEngine):
    """Podman. It reads an OCI layout, and keeps its manifest with its digest."""

    name: ClassVar[str] = "podman"
    proved: ClassVar[bool] = True
    form: ClassVar[Literal["layout", "archive"]] = "layout"
    more_options: ClassVar[tuple[str, ...]] = ("--read-only-tmpfs=false",)

    def runtime_question(self) -> list[str]:
        """As `ContainerEngine` says: name and version."""
        told = "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Version}}"
        return [*self.command, "info", "--format", told]

    def load(self, path: Path) -> list[str]:
        """As `ContainerEngine` says. A relative path: of an absolute one it would want lower case."""
        return [*self.command, "load", "--quiet", "--input", path.name]

    def loaded_name(self, name: str) -> str:
        """As `ContainerEngine` says."""
        return f"localhost/{name}:latest"

    def inspect_image(self, image: str) -> list[str]:
        """As `ContainerEngine` says."""
        return [*self.command, "image", "inspect", "--format", "{{.Id}} {{.Digest}}", image]
