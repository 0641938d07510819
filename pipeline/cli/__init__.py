"""The command line: argv, environment, clock, printing and exit codes. The library raises; this room prints.

What people read goes to stderr; stdout carries one machine-readable result with `--json`, or the answer that
was asked for (`explain`, `schema`, `inspect`).
"""

from pipeline.cli.main import main

__all__ = ["main"]
