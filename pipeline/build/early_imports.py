"""Import what a build from nothing uses later, while it has to wait at its start.

Where it is used, several threads work by then, and an import holds the interpreter's lock against all of them.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from functools import partial

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

    Then begin what else nearly every build from nothing needs. What fails is told where it is used.
    """
    steps: list[Callable[[], object]] = [partial(importlib.import_module, name) for name in USED_LATER]
    for step in (*steps, start_renderer, _load_licence_list):
        if not waiting():
            return
        with contextlib.suppress(Exception):
            step()


def _load_licence_list() -> None:
    from pipeline.oci.licences import load_licence_list

    load_licence_list()
