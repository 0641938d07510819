"""The command line: argv, environment, clock, printing and exit codes."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(2)
