"""The command line: argv, environment, clock, printing and exit codes.

The library raises; this room prints.

What people read goes to stderr; stdout carries one machine-readable result with `--json`, or the answer that was asked
for (`explain`, `schema`, `inspect`).
"""

import gc
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
    from pipeline.cli.standard_streams import open_streams

    open_streams()
    # What is loaded stays for as long as the process does: to look for garbage in it is a fifth of the time to start.
    gc.disable()
    from pipeline.cli.main import run_command_line

    run_command_line()


__all__ = ["main"]
