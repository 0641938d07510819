"""Writers of instances' output to stdout, line by line, without control characters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pipeline.escaping import escape_invisible


class Follower:
    """A writer of instances' output to stdout, line by line.

    Each has the instance's name if `labelled`. Control characters are escaped; a line of more than `LONGEST` bytes is
    broken. `told` is called with each piece.
    """

    LONGEST = 16 << 10

    def __init__(self, *, shown: bool = True, labelled: bool = True, told: Callable[[], None] | None = None) -> None:
        self._shown = shown
        self._labelled = labelled
        self._told = told
        self._open: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, piece: bytes) -> None:
        if self._told is not None:
            self._told()
        if not self._shown:
            return
        with self._lock:
            *lines, rest = (self._open.get(name, b"") + piece).split(b"\n")
            if len(rest) > self.LONGEST:
                lines, rest = [*lines, rest], b""
            self._open[name] = rest
            self._write(name, lines)

    def close(self) -> None:
        """Write lines that were not ended."""
        with self._lock:
            for name, rest in self._open.items():
                self._write(name, [rest] if rest else [])
            self._open.clear()

    def _write(self, name: str, lines: Sequence[bytes]) -> None:
        if lines:
            texts = (escape_invisible(line.decode(errors="replace").rstrip("\r"), lines=False) for line in lines)
            label = f"{escape_invisible(name, lines=False)} | " if self._labelled else ""
            print("\n".join(f"{label}{text}" for text in texts), flush=True)
