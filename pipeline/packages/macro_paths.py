"""Paths for rpm macros, of which rpm expands nothing.

rpm runs `%(...)` in a path by a shell, and splits some paths into words.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_DESCRIPTORS = "/proc/self/fd"


@contextlib.contextmanager
def macro_path(folder: Path) -> Iterator[tuple[int, str]]:
    """Open a folder; yield its descriptor, and a path to it that is the same in a macro.

    rpm has no way to write each character of a path in a macro. A command is to inherit the descriptor under its
    number. Raises OSError, also where no process can reach a folder by its descriptor.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = f"{_DESCRIPTORS}/{handle}"
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        yield handle, path
    finally:
        os.close(handle)
