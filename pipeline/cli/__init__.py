"""Command line: parse arguments, run commands, print results and errors, set exit codes.

Other rooms raise; this room prints. Messages for people go to stderr; stdout carries one machine-readable result with
`--json`, or the answer that was asked for (`explain`, `schema`, `inspect`).
"""

import gc
import os


def main() -> None:
    """Run the command line as the whole of this process."""
    # Here and not above, and in this order: Ctrl-C is handled before the rest is loaded, which takes a while.
    try:
        from pipeline.cli.utf8_mode import use_utf8

        use_utf8()
        from pipeline.cli.signals import end_at_once

        end_at_once()
    except KeyboardInterrupt:
        os.write(2, b"interrupted\n")
        os._exit(130)
    from pipeline.cli.process_exit import PromptExit
    from pipeline.cli.standard_streams import open_streams

    open_streams()
    # Imported modules are never garbage: collecting during imports takes a fifth of the start-up time.
    gc.disable()
    with PromptExit():
        from pipeline.cli.main import run_command_line

        run_command_line()


__all__ = ["main"]
