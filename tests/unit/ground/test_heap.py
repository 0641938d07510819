"""One arena of the C library's heap for all threads."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source import ROOT

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")

THREADS = """
import ctypes, sys, threading
from pathlib import Path
from pipeline.heap import release_free_memory, use_one_arena
if sys.argv[1] == "one":
    use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype = ctypes.c_void_p, ctypes.c_void_p
libc.malloc.argtypes, libc.fclose.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
together = threading.Barrier(4)
def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
release_free_memory()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
print(Path(sys.argv[2]).read_text().count("<heap nr="))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has one heap for all threads")
def test_threads_share_one_arena_where_that_is_asked_for(tmp_path: Path) -> None:
    arenas = {
        asked: int(
            subprocess.run(
                [sys.executable, "-c", THREADS, asked, tmp_path / "info"],
                cwd=ROOT, capture_output=True, text=True, check=True,
            ).stdout
        )
        for asked in ("one", "as it comes")
    }  # fmt: skip
    assert arenas["one"] == 1
    assert arenas["as it comes"] > 1


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library's heap has no settings")
def test_freed_buffers_are_used_again() -> None:
    program = """
import resource, sys
from pipeline.heap import use_one_arena

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "one":
    use_one_arena()
buffers = [bytearray(4 << 20) for _ in range(6)]
del buffers
before = faults()
for _ in range(8):
    buffers = [bytearray(4 << 20) for _ in range(6)]
    del buffers
print(faults() - before)
"""
    new_pages = {
        asked: int(
            subprocess.run(
                [sys.executable, "-c", program, asked], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )
        for asked in ("one", "as it comes")
    }
    assert new_pages["one"] < 8 * 6 * (4 << 20) // 4096 // 20
    assert new_pages["as it comes"] > 4 * new_pages["one"]


def test_huge_pages_are_reserved_and_not_yet_taken() -> None:
    program = """
import os, re
from pathlib import Path
from pipeline.heap import reserve_huge_pages

def heap() -> tuple[int, int, int]:
    ends, asked, inside, size = 0, 0, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        mapping = re.match("([0-9a-f]+)-([0-9a-f]+) ", line)
        if mapping:
            inside = line.endswith("[heap]")
            begin, end = (int(one, 16) for one in mapping.groups())
            size = end - begin
            ends = max(ends, end) if inside else ends
        elif inside and line.startswith("VmFlags:") and "hg" in line.split():
            asked += size
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return ends, asked, pages * os.sysconf("SC_PAGE_SIZE")

before, none, taken = heap()
reserve_huge_pages(64 << 20)
after, asked, now = heap()
print(after - before, none, asked, now - taken)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.PIPE
    )
    reserved, before, asked, taken = map(int, done.stdout.split())
    assert reserved >= 64 << 20 and taken < 8 << 20
    if HUGE_PAGES.is_dir():
        assert before == 0 and asked >= 62 << 20, "all but the part of a huge page at each end"
    else:
        pytest.skip(f"the kernel has no {HUGE_PAGES}: the heap is reserved, but nothing can be asked of it")
