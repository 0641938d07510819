"""The methods of a session of commands on an image's tree, however it runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.sandbox.command_container import CommandResult
from pipeline.sandbox.rootfs import RootFs


class CommandSession(Protocol):
    """A session of commands run as the image's root; see `BuildSession`."""

    @property
    def files(self) -> RootFs: ...
    @property
    def shift(self) -> int: ...
    @property
    def architecture(self) -> str: ...
    def bind(self, source: Path, target: str) -> None: ...
    def share(self, target: str) -> Path: ...
    def begin_commands(self, folder: Path, target: str) -> None: ...
    def end_commands(self) -> None: ...
    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        timeout: float = 300.0,
    ) -> CommandResult: ...
