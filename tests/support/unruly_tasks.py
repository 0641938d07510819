"""Tasks whose results are hard to hand over."""

from __future__ import annotations

import itertools
import threading
import time

from pipeline.progress import Progress

LARGE = 4 << 20
"""Bytes that a pipe takes in many pieces."""


class Unreadable:
    """What can be pickled, and not read again."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return _refuse, ()


def _refuse() -> object:
    raise LookupError("no such class here")


def return_unreadable(work: object, progress: Progress) -> object:
    return Unreadable()


def report_unreadable_and_wait(work: object, progress: Progress) -> object:
    """Report what the other end cannot read, and go on."""
    progress.start("stage", "label", total=Unreadable())  # type: ignore[arg-type]
    time.sleep(3600)
    return None


def return_while_a_thread_reports(work: object, progress: Progress) -> object:
    """A large result, while another thread goes on reporting."""
    begun = threading.Event()

    def report() -> None:
        for number in itertools.count():
            progress.warn(f"{number}")
            begun.set()
            time.sleep(0.0001)

    threading.Thread(target=report, daemon=True).start()
    begun.wait()
    return "x" * LARGE


def wait_for_a_container(work: object, progress: Progress) -> object:
    """Do as a build does that tests its image."""
    running = progress.start("smoke", "image")
    progress.finish(running)
    return "tested"
