"""The C library's heap: one arena for all threads, huge pages, free memory given back.

glibc gives each thread an arena of its own. What one thread freed, a buffer of megabytes, no other can have, and what
small object lies above it keeps it from going back to the system. Threads that pack layers ask the heap for a few large
buffers a second, so an arena of their own saves them nothing (docs/decisions/0054-memory-that-does-not-grow.md).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
"""malloc.h of glibc; other C libraries have one heap, and no `mallopt`."""

_MADV_HUGEPAGE: Final = 14
_HUGE_PAGE: Final = 2 << 20
_LARGE_OBJECT: Final = 32 << 20
"""Bytes from which on an object is mapped by itself: the most that glibc takes, and comes to by itself."""
_FREE_MEMORY: Final = 2 * _LARGE_OBJECT
"""Bytes of free memory at the heap's end from which on it is given back: twice the largest object in the heap, as glibc
itself has it."""
_TOP_PAD: Final = 128 << 10
"""Bytes by which glibc lets the heap grow."""


def use_one_arena() -> None:
    """Have all threads allocate from the same arena; to be called before there are many threads.

    Buffers of megabytes come from it too, and up to 64 MiB that were freed are kept for the next ones until
    `release_free_memory`: the system gives zeroed pages, which takes longer than many a use of them.
    """
    found = getattr(ctypes.CDLL(None), "mallopt", None)
    if found is not None:
        found(_M_ARENA_MAX, 1)
        found(_M_MMAP_THRESHOLD, _LARGE_OBJECT)
        found(_M_TRIM_THRESHOLD, _FREE_MEMORY)


def reserve_huge_pages(size: int) -> None:
    """Reserve the next `size` bytes of the heap in huge pages, where the system has them.

    The system has them for who asks, or for all (madvise(2)). To be called before a library fills that much: of what it
    waits for, a tenth is pages of 4 KiB. The memory is taken as it is filled, 2 MiB at a time, and given back as any
    other. Large objects come from the heap too from then on, as glibc itself has it once such an object was freed
    (mallopt(3), M_MMAP_THRESHOLD).
    """
    library = ctypes.CDLL(None)
    if not all(hasattr(library, name) for name in ("mallopt", "sbrk", "madvise")):
        return
    library.sbrk.restype, library.malloc.restype = ctypes.c_void_p, ctypes.c_void_p
    begin = library.sbrk(ctypes.c_ssize_t(0))
    library.mallopt(_M_MMAP_THRESHOLD, _LARGE_OBJECT)
    library.mallopt(_M_TRIM_THRESHOLD, size + _FREE_MEMORY)
    library.mallopt(_M_TOP_PAD, size)
    library.free(ctypes.c_void_p(library.malloc(ctypes.c_size_t(_HUGE_PAGE))))  # The heap grows by this, and `size`.
    library.mallopt(_M_TOP_PAD, _TOP_PAD)
    library.mallopt(_M_TRIM_THRESHOLD, _FREE_MEMORY)
    start = begin + -begin % _HUGE_PAGE
    length = library.sbrk(ctypes.c_ssize_t(0)) - start
    if length > 0:
        library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)


def release_free_memory() -> None:
    """Give memory back to the system that was freed, in the middle of the heap too."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if found is not None:
        found(ctypes.c_size_t(0))
