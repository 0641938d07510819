"""Read all bytes of a mirror, and heal what is rotten from the store or another mirror."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pipeline.gather import Workshop
from pipeline.mirror.address import Address
from pipeline.mirror.healing import Healing
from pipeline.model.scrub import Scrubbed
from pipeline.release.current import mirror_access


def scrub(mirror: Address, workshop: Workshop, *, sources: Sequence[Address] = (), rate: int = 0) -> Scrubbed:
    """Read everything on a mirror, compare it with its digest, and heal what is damaged.

    At most `rate` bytes are read in a second (0: no limit). What is rotten or missing is healed from the store, then
    from `sources`, which are mirrors.

    Raises UsageError `not-a-mirror`, EnvironmentLacking if a mirror cannot be reached.
    """
    access = mirror_access(workshop)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(access.mirror(address)) for address in sources]
        opened = stack.enter_context(access.mirror(mirror))
        healing = Healing(workshop.store, others)
        return opened.scrub(healing, rate=rate, progress=workshop.progress)
