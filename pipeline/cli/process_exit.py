"""End the process without taking the interpreter apart.

At its end Python looks for garbage, clears all modules and frees each object: 0.06 s after a build, on one processor.
The system takes the memory of a process as a whole. Imports nothing that takes time: it is imported before all others.
"""

import atexit
import os
import sys
from types import TracebackType


class PromptExit:
    """A block at the end of a process, which it leaves promptly with the block's status.

    Threads are joined and exit functions are called before, as ever: Python calls the first that was registered last,
    so the block is to begin before others register theirs. After an exception other than SystemExit, with a status
    that is a message, and where a stream cannot be flushed, Python ends the process in its own way.
    """

    def __init__(self) -> None:
        self._status: int | None = None

    def __enter__(self) -> None:
        atexit.register(self._leave)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = error.code if isinstance(error, SystemExit) else 0 if error is None else ""
        if code is None or isinstance(code, int):
            self._status = code or 0

    def _leave(self) -> None:
        if self._status is None or sys.flags.inspect:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        os._exit(self._status)
