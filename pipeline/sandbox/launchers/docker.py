"""Docker Engine as a launcher (docs.docker.com/reference/cli/docker).

Its command lines are tested, and not more.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.container_engine import ContainerEngine


@dataclass(frozen=True, slots=True)
class Docker(ContainerEngine):
    """Docker Engine on this machine.

    The ID of an image that it loads is the digest of its configuration, with the classic image store. With containerd's
    it is that of another manifest, so the image is refused (`launcher-image`).
    """

    name: ClassVar[str] = "docker"
    form: ClassVar[Literal["layout", "archive"]] = "archive"

    def runtime_question(self) -> list[str]:
        """As `ContainerEngine` says: the name alone."""
        return [*self.command, "info", "--format", "{{.DefaultRuntime}}"]

    def load(self, path: Path) -> list[str]:
        """As `ContainerEngine` says."""
        return [*self.command, "load", "--quiet", "--input", path.name]

    def loaded_name(self, name: str) -> str:
        """As `ContainerEngine` says: the archive's own."""
        return f"{name}:latest"
