"""The answer to one attempt at a check."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.checks import CheckAnswer


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """An answer that is yet to be judged.

    `cut_off`: its time was over before it could tell. `settled`: asking again would not change it.
    """

    answer: CheckAnswer
    cut_off: bool = False
    settled: bool = False
