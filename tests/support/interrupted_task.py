"""A task that is sent Ctrl-C, as all processes of a terminal are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from pipeline.progress import Progress

_ASK = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def survive(work: object, progress: Progress) -> object:
    """Whether it goes on, and whether what it starts still listens to the signal (a container may stop by it)."""
    os.kill(os.getpid(), signal.SIGINT)
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    said = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True).stdout
    return f"{work} {blocked} {said.strip()}"
