"""How many inputs a property test draws."""

from __future__ import annotations

import os

FAST = os.environ.get("HYPOTHESIS_PROFILE") == "fast"
"""`ci/test --fast` draws a tenth of the inputs; `ci/test` and continuous integration draw all."""


def examples(number: int) -> int:
    """The number of inputs to draw of a test that draws `number` of them."""
    return max(10, number // 10) if FAST else number
