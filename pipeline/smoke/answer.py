"""What one attempt to ask came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` says why it is not right. `cut_off`: its time was over before it could tell. `settled`: asking again
    would not change it."""

    right: bool
    detail: str = ""
    cut_off: bool = False
    settled: bool = False
