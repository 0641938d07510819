"""The `version` command: print relbuild's version and that of the rpm library."""

from __future__ import annotations

import pipeline
from pipeline.cli.app import CommandContext, command
from pipeline.packages import library_version


@command(rank=260, store=False, progress=None)
def version_command(context: CommandContext) -> int:
    """Print relbuild's version and that of the rpm library."""
    own, rpm = pipeline.__version__, library_version()
    line = f"relbuild {own} (rpm {rpm}, format {pipeline.FORMAT})"
    context.show([line], {"relbuild": own, "rpm": rpm, "format": pipeline.FORMAT})
    return 0
