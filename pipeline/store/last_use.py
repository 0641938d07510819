"""Record in the times of a file that it was used; `collect_garbage` goes by them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

USE_RECORD_AGE = 3600.0
"""Seconds after which a use is recorded again in the file's times: seldom enough to cost nothing."""


def record_use(path: Path) -> None:
    """Update a file's times to now, at most once in `USE_RECORD_AGE`; a failure is no error."""
    with contextlib.suppress(OSError):
        now = time.time()
        if now - path.stat().st_mtime > USE_RECORD_AGE:
            os.utime(path, (now, now))
