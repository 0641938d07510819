"""The C library's heap: one arena for all threads, free memory given back at a phase's end.

glibc gives each thread an arena of its own. What one thread freed, a buffer of megabytes, no other can have, and what
small object lies above it keeps it from going back to the system. Threads that pack layers ask the heap for a few large
buffers a second, so an arena of their own saves them nothing (docs/decisions/0054-memory-that-does-not-grow.md).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8
"""malloc.h of glibc; other C libraries have one heap, and no `mallopt`."""


def use_one_arena() -> None:
    """Have all threads allocate from the same arena; to be called before there are many threads."""
    found = getattr(ctypes.CDLL(None), "mallopt", None)
    if found is not None:
        found(_M_ARENA_MAX, 1)


def release_free_memory() -> None:
    """Give memory back to the system that was freed, in the middle of the heap too."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if found is not None:
        found(ctypes.c_size_t(0))
