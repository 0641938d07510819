"""The launcher of images for a smoke test, and the protocol of launched instances."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pipeline.errors import UsageError
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.image import Image
from pipeline.model.limit import LimitReading
from pipeline.model.limits import Limits
from pipeline.model.smoke import SmokePlan
from pipeline.model.usage import Usage
from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.container_user import Identity
from pipeline.sandbox.instance_launch import launch
from pipeline.sandbox.rootfs import RootFs
from pipeline.sandbox.sandbox_registry import SandboxRegistry
from pipeline.sandbox.volumes import Volumes, open_volumes


class LaunchedInstance(Protocol):
    """A running container of an image, whatever launched it, as checks query it.

    `sandbox.Instance` says what each member does. Files, processes and sockets are looked at from the host.
    """

    @property
    def name(self) -> str: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def files(self) -> RootFs: ...
    @property
    def pid(self) -> int: ...
    @property
    def first_id(self) -> int:
        """The number that the image's user 0 has on the host."""
        ...

    @property
    def main_user(self) -> tuple[int, int]:
        """User and group of its first process, as the image has them."""
        ...

    @property
    def alive(self) -> bool: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def log(self) -> bytes: ...
    @property
    def log_dropped(self) -> int: ...
    def processes(self) -> Collection[int]:
        """Return the PIDs of its processes, as the host has them."""
        ...

    def wait(self, timeout: float) -> int | None: ...
    def execute(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        user: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> CommandResult: ...
    def connect(self, port: int, *, timeout: float, address: str | None = None) -> socket.socket: ...
    def identity(self, user: str) -> Identity: ...
    def stop(self, stop_signal: str, within: float) -> int | None: ...
    def kill(self) -> int: ...
    def readings(self) -> tuple[LimitReading, ...]: ...
    def usage(self) -> Usage: ...


class KeptVolumes(Protocol):
    """The volumes of instances that run one after the other."""

    def close(self) -> None:
        """Release them; the launcher that made them removes their data."""
        ...


class Launcher(ABC):
    """A launcher of images for a smoke test.

    `str()` names it with its version, runtime and options, without secrets, in reports and evidence.
    """

    @property
    def identified(self) -> bool:
        """True if `str()` tells it from all others; else no earlier verdict is reused."""
        return True

    @abstractmethod
    def refuse(self, plan: SmokePlan) -> None:
        """Refuse a plan of which it cannot do something, before anything is launched.

        Raises UsageError `launcher-lacks`, which names it.
        """

    @abstractmethod
    def opened(self) -> AbstractContextManager[None]:
        """Hold, for the block in which instances are launched, what they share."""

    @abstractmethod
    def launch(
        self, image: Image, lowers: Sequence[Path], limits: Limits, *, name: str, user: str, volumes: KeptVolumes | None
    ) -> AbstractContextManager[LaunchedInstance]:
        """Launch an image, as `user` ("": the image's); it is killed when the block ends.

        Raises SmokeError where it cannot be started, EnvironmentLacking where the host lacks something.
        """

    @abstractmethod
    def volumes(self, name: str) -> AbstractContextManager[KeptVolumes]:
        """Make volumes that outlive one instance, removed when the block ends."""


@dataclass(frozen=True, slots=True)
class SandboxLauncher(Launcher):
    """The launcher that is relbuild's own: its sandbox, by an OCI runtime."""

    sandboxes: SandboxRegistry

    def __str__(self) -> str:
        return str(self.sandboxes.runtime)

    def refuse(self, plan: SmokePlan) -> None:
        """As `Launcher` says: it can do everything."""

    def opened(self) -> AbstractContextManager[None]:
        """As `Launcher` says: they share nothing."""
        return nullcontext()

    def launch(
        self, image: Image, lowers: Sequence[Path], limits: Limits, *, name: str, user: str, volumes: KeptVolumes | None
    ) -> AbstractContextManager[LaunchedInstance]:
        """As `Launcher` says."""
        assert volumes is None or isinstance(volumes, Volumes)
        config = replace(image.config, user=user) if user else image.config
        return launch(config, lowers, limits, sandboxes=self.sandboxes, name=name, volumes=volumes)

    def volumes(self, name: str) -> AbstractContextManager[KeptVolumes]:
        """As `Launcher` says."""
        return open_volumes(self.sandboxes, name)


def as_launcher(given: SandboxRegistry | Launcher) -> Launcher:
    """Return the launcher of a registry of sandboxes, or the launcher that was given."""
    return given if isinstance(given, Launcher) else SandboxLauncher(given)


def require_own_sandboxes(launcher: Launcher, what: str) -> SandboxRegistry:
    """Return the registry of relbuild's own sandboxes.

    Raises UsageError `launcher-lacks` for another launcher, which `what` cannot be done by.
    """
    if isinstance(launcher, SandboxLauncher):
        return launcher.sandboxes
    raise launcher_lacks(launcher, what)


def launcher_lacks(launcher: object, what: str) -> UsageError:
    """Make the error of something that a launcher cannot do."""
    return UsageError(
        "launcher-lacks",
        f"{what} cannot be done by the launcher {launcher}",
        hint="leave out --launcher (and RELBUILD_LAUNCHER), or remove this from the recipe's 'smoke'",
    )
