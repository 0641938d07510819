"""Open a mirror and its repair sources; verify all its content, restore damaged content."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from pipeline.mirror.address import Address
from pipeline.mirror.repair_sources import RepairSources
from pipeline.model.scrub import ScrubResult
from pipeline.prepare import BuildEnvironment
from pipeline.release.current_images import mirror_access


def scrub(
    mirror: Address,
    build_env: BuildEnvironment,
    *,
    sources: Sequence[Address] = (),
    rate: int = 0,
    known_as: str = "",
) -> ScrubResult:
    """Read and verify everything on a mirror; restore what is corrupt or missing.

    At most `rate` bytes are read in a second (0: no limit). Content is restored from the store, then from the mirrors
    `sources`. A directory mirror that is no longer known as one becomes one again, under the name `known_as`, else the
    one in its signatures.

    Raises UsageError `not-a-mirror`, `marker-ambiguous`, EnvironmentLacking if a mirror cannot be reached.
    """
    access = mirror_access(build_env)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(access.mirror(address)) for address in sources]
        restored = mirror.form.restore_marker(mirror, access, known_as)
        opened = stack.enter_context(access.mirror(mirror, name=known_as))
        healing = RepairSources(build_env.store, others)
        done = opened.scrub(healing, rate=rate, progress=build_env.progress)
        return done if restored is None else replace(done, findings=(restored, *done.findings))
