"""Open a mirror and its repair sources; verify all its content, restore damaged content."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pipeline.mirror.address import Address
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.scrub import ScrubResult
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access


def scrub(
    mirror: Address, build_env: BuildEnvironment, *, sources: Sequence[Address] = (), rate: int = 0
) -> ScrubResult:
    """Read and verify everything on a mirror; restore what is corrupt or missing.

    At most `rate` bytes are read in a second (0: no limit). Content is restored from the store, then from the mirrors
    `sources`.

    Raises UsageError `not-a-mirror`, EnvironmentLacking if a mirror cannot be reached.
    """
    access = mirror_access(build_env)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(access.mirror(address)) for address in sources]
        opened = stack.enter_context(access.mirror(mirror))
        healing = RepairSources(build_env.store, others)
        return opened.scrub(healing, rate=rate, progress=build_env.progress)
