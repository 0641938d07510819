"""gVisor's runsc as a launcher: a runtime of Docker Engine, as gVisor's documents have it.

https://gvisor.dev/docs/user_guide/quick_start/docker. Its command lines are tested, and not more.
"""

from __future__ import annotations

from typing import ClassVar

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.launchers.docker import Docker


@dataclass(frozen=True, slots=True)
class Runsc(Docker):
    """Docker Engine with runsc.

    Processes, sockets and files of a container are in a kernel of its own.
    """

    name: ClassVar[str] = "runsc"
    visible: ClassVar[bool] = False
    more_options: ClassVar[tuple[str, ...]] = ("--runtime", "runsc")
    not_isolated: ClassVar[str] = ""

    def runtime_question(self) -> list[str]:
        """As `ContainerEngine` says: runsc is its runtime."""
        return []
