"""Checks of how the instance ends when it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


DEFAULT_SIGNAL = "SIGTERM"
"""The stop signal of an image that names none (config.md, StopSignal)."""


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """The signal that was sent, and the exit code (None: it ran on).

    `words`: the last that it printed.
    """

    signal: str
    exit_code: int | None
    words: str = ""


def _judge(check: Check, seen: StopAnswer, config: ImageConfig, ready: Check | None) -> str:
    wanted = check.signal or config.stop_signal or DEFAULT_SIGNAL
    if seen.signal != wanted:
        return f"it was stopped with {seen.signal}, not with {wanted}"
    if seen.exit_code is None:
        return f"it still runs {check.within} ms after {seen.signal}; {seen.words}"
    if check.expect.exit_code is not None and seen.exit_code != check.expect.exit_code:
        return f"exit code {seen.exit_code} after {seen.signal}, not {check.expect.exit_code}; {seen.words}"
    return ""


DECLARATION = CheckDeclaration(StopAnswer, _judge, beside=frozenset())
