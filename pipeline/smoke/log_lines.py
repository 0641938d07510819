"""Lines of a container's log: marks of failed checks, the first that explains, excerpts.

relbuild's own lines begin with `[relbuild: `.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SKIPPED = "skipped: "
"""Beginning of the detail of a check that was not asked because of another failure."""

_OWN = "[relbuild: "
_BEFORE = 3
"""Lines of an excerpt before the line that explains."""
_MARK_LIMIT = 300
"""Characters of a failed check's reason in the mark of a log."""

_SEVERE = re.compile(
    r"\b(?:fatal|panic|emerg|emergency|crit|critical|uncaught|segmentation fault|out of memory|assertion failed)\b"
    r"|\[error\]|(?:^|[\s\]:])\w*(?:error|exception)\b\s*:",
    re.IGNORECASE,
)
"""Severities as servers write them: `FATAL:`, `[emerg]`, `[ERROR]`, `ValueError: …`, `# Fatal error`."""

_TELLING = re.compile(
    r"\b(?:cannot|can't|could not|couldn't|unable to|failed|failure|denied|refused|no such|not found|not permitted"
    r"|invalid|unrecognized|unresolved|unsupported|bad directive|syntax error|unknown"
    r"|already in use|read-only file system|no space left|timed out"
    r"|aborted|aborting|killed|error)\b",
    re.IGNORECASE,
)
"""Words of lines that often say why, where no line has a severity."""

_HARMLESS = re.compile(
    r"\b(?:0|no|without) (?:errors?|failures?)\b|\berror[_.-]?log\b|\blog[_-]error\b|\[(?:warning|note|system|info)\]"
    r"|\b(?:warning|notice|info|debug):",
    re.IGNORECASE,
)
"""Lines that name an error but report none."""


def explaining_line(lines: Sequence[str]) -> int | None:
    """Return the index of the first line of a log that explains a failure, or None.

    It is the first with a severity of servers, else the first with a word that often says why. Of a Python traceback,
    it is the exception's line.
    """
    weak = None
    for number, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            return _exception_line(lines, number)
        if line.startswith(_OWN) or _HARMLESS.search(line):
            continue
        if _SEVERE.search(line):
            return number
        if weak is None and _TELLING.search(line):
            weak = number
    return weak


def log_excerpt(lines: Sequence[str], cause: int | None, limit: int) -> tuple[str, ...]:
    """Return at most about `limit` lines: those around the line `cause`, and the last ones.

    Without a cause, the last lines. A line says how many were left out.
    """
    if len(lines) <= limit:
        return tuple(lines)
    if cause is None:
        return _joined(lines, (), range(len(lines) - limit, len(lines)))
    first = max(0, cause - _BEFORE)
    around = range(first, min(len(lines), first + limit // 2))
    last = range(max(around.stop, len(lines) - (limit - len(around))), len(lines))
    return _joined(lines, around, last)


def failure_mark(name: str, reason: str, *, asked: int, failed: int) -> str:
    """Return the line that marks in a log when a check failed.

    Times are milliseconds since the start.
    """
    first = reason.splitlines()[0] if reason.strip() else "failed"
    shown = f"{first[:_MARK_LIMIT]}…" if len(first) > _MARK_LIMIT else first
    began = f", asked since {asked / 1000:.1f} s" if failed - asked >= 100 else ""
    return f"{_OWN}check '{name}' failed {failed / 1000:.1f} s after the start{began}: {shown}]"


def with_marks(log: bytes, marks: Sequence[tuple[int, str]]) -> bytes:
    """Insert marks, (offset, line) in order, each where the next line of a log begins."""
    parts, done = [], 0
    for offset, mark in marks:
        at = offset
        if offset and log[offset - 1 : offset] != b"\n":
            end = log.find(b"\n", offset)
            at = end + 1 if end >= 0 else len(log)
        at = max(done, at)
        piece = log[done:at]
        parts += [piece, b"" if not piece or piece.endswith(b"\n") else b"\n", f"{mark}\n".encode(errors="replace")]
        done = at
    return b"".join([*parts, log[done:]])


def shorten_log(log: str, limit: int) -> str:
    """Cut a long log at line ends to its beginning and its end, together `limit` characters.

    A quarter is from its beginning. A line that is longer than its part is cut within.
    """
    if len(log) <= limit:
        return log
    head = log.rfind("\n", 0, limit // 4) + 1 or limit // 4
    tail = len(log) - (limit - limit // 4)
    if log[tail - 1] != "\n" and "\n" in log[tail:-1]:
        tail = log.index("\n", tail) + 1
    ending = "" if log[head - 1] == "\n" else "\n"
    return f"{log[:head]}{ending}{_OWN}{tail - head} characters omitted]\n{log[tail:]}"


def _exception_line(lines: Sequence[str], start: int) -> int:
    after = range(start + 1, len(lines))
    return next((number for number in after if lines[number].strip() and not lines[number].startswith(" ")), start)


def _joined(lines: Sequence[str], around: Sequence[int], last: range) -> tuple[str, ...]:
    kept, made, following = [*around, *last], [], 0
    for number in kept:
        if number > following:
            made.append(f"{_OWN}{number - following} lines omitted]")
        made.append(lines[number])
        following = number + 1
    return tuple(made)
