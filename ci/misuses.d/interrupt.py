"""Run relbuild until a stage begins, press Ctrl-C, and print what is no progress: interrupt.py STAGE WORD…"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys


def main() -> int:
    """Return the command's exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stage, words = sys.argv[1], [os.environ["PYTHON"], "-m", "pipeline", *sys.argv[2:], "--progress", "json"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as command:
        assert command.stderr is not None
        sent = False
        for line in command.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            if not sent and event.get("stage") == stage:
                os.killpg(command.pid, signal.SIGINT)
                sent = True
            if not event:
                print(line, end="")
        if not sent:
            print(f"(stage {stage} did not begin)")
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
