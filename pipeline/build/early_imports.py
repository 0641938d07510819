"""Import what a build from nothing uses later, while it has to wait at its start.

Where it is used, several threads work by then, and an import holds the interpreter's lock against all of them.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable

from pipeline.render import start_renderer

USED_LATER = (
    "zstandard",
    "pipeline.resolve.metadata_conversion",
    "html",
    "deflate",
    "cryptography.hazmat.primitives.ciphers",
    "importlib.metadata",
    "email.parser",
    "pipeline.oci.licences",
    "license_expression",
    "pipeline.oci.spdx",
    "pipeline.oci.cyclonedx",
    "pipeline.build.build_snapshot",
    "libarchive",
)
"""Modules that each build from nothing imports beside other work, in the order in which it uses them."""


def import_early(waiting: Callable[[], bool]) -> None:
    """Import modules as long as `waiting` returns True.

    What cannot be imported is told where it is used.
    """
    for name in USED_LATER:
        if not waiting():
            return
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if waiting():
        start_renderer()
