"""The command line: argv, environment, clock, printing and exit codes.

The library raises; this room prints.

What people read goes to stderr; stdout carries one machine-readable result with `--json`, or the answer that was asked
for (`explain`, `schema`, `inspect`).
"""

import os


def main() -> None:
    """Run the command line, as a process of its own."""
    # Here and not above, and in this order: Ctrl-C is answered before the rest is loaded, which takes a while.
    try:
        from pipeline.cli.signals import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        os.write(2, b"interrupted\n")
        os._exit(130)
    from pipeline.cli.streams import open_streams

    open_streams()
    from pipeline.cli.main import run

    run()


__all__ = ["main"]
