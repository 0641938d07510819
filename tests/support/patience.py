"""How long tests wait for what should end by itself."""

from __future__ import annotations

from typing import Final

HUNG: Final = 900.0
"""Seconds after which a process counts as hung. It guards against waiting for ever, and measures nothing: beside six
other files of tests, on a machine in a slow hour, what takes half a minute alone takes five."""
