"""Reading of layers: libarchive's, against the reader of its own that relbuild had before.

The former reader is taken out of the history, so that it needs no keeping. Both read the same layers, made by GNU tar
from this machine's own files, in turn, several times, in one run: the tar stream alone, and as `unpack` reads a layer,
decompressed and with both digests computed. Processor time is compared, because it does not count what others do.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.compression import PIECE
from pipeline.gzip_members import gzip_member
from pipeline.layers.tar_format import read_tar
from pipeline.streams import decompressed

ROOT = Path(__file__).parents[2]
FORMER = "7a9c7d1:pipeline/layers/tar.py"
"""The last version of the former reader."""
SIZE = 128 << 20
"""Bytes of files in each layer: some seconds of reading for ten rounds."""
KINDS = {"small files": (1, 4 << 10), "files of a system": (1, 64 << 20), "large files": (8 << 20, 512 << 20)}

Read = Callable[[Iterator[bytes | bytearray], str], Iterator[Any]]


def former_reader() -> Read:
    source = subprocess.run(["git", "-C", ROOT, "show", FORMER], capture_output=True, text=True, check=False)
    if source.returncode != 0:
        sys.exit(f"the former reader is not in this clone's history ({FORMER}): fetch all of it")
    module = types.ModuleType("former_reader")
    sys.modules["former_reader"] = module
    exec(compile(source.stdout, FORMER, "exec"), vars(module))
    return module.read_tar  # type: ignore[no-any-return]


def layer(least: int, most: int) -> bytes:
    """A tar of files between two sizes, with the directories above them."""
    names, size = [], 0
    for folder in ("/usr/share", "/usr/lib", "/usr/bin"):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_symlink() or not path.is_file() or not least <= (found := path.stat().st_size) <= most:
                continue
            names.append(str(path.relative_to("/")))
            size += found
            if size > SIZE:
                break
    return subprocess.run(
        ["tar", "-c", "--format=pax", "--no-recursion", "-C", "/", "-T", "-"],
        input="\n".join(names).encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip


def content(read: Read, pieces: Iterator[bytes | bytearray]) -> int:
    return sum(len(piece) for member in read(pieces, "layer") for piece in member.pieces())


def plain(read: Read, data: bytes) -> int:
    return content(read, (data[at : at + PIECE] for at in range(0, len(data), PIECE)))


def unpacked(read: Read, blob: bytes) -> int:
    digest = hashlib.sha256()
    whole = hashlib.sha256(blob)

    def hashed() -> Iterator[bytes | bytearray]:
        for piece in decompressed(io.BytesIO(blob), limit=1 << 40, name="layer"):
            digest.update(piece)
            yield piece

    size = content(read, hashed())
    assert len(digest.digest() + whole.digest()) == 64
    return size


def seconds(act: Callable[[Read, bytes], int], read: Read, data: bytes) -> tuple[float, int]:
    started = time.process_time()
    size = act(read, data)
    return time.process_time() - started, size


def main() -> None:
    """Measure and print; the exit status is 1 if the throughput is below 0.9 of the former reader's."""
    parser = argparse.ArgumentParser(prog="ci/bench reading")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    former, ratios = former_reader(), []
    print(
        f"{options.runs} runs, median MB/s of processor time, and the median of the runs' ratios to the former reader"
    )
    for kind, sizes in KINDS.items():
        data = layer(*sizes)
        blob = b"".join(gzip_member(data[at : at + PIECE]) for at in range(0, len(data), PIECE))
        for what, act, given in (("tar alone", plain, data), ("as it is unpacked", unpacked, blob)):
            mine, theirs = [], []
            for turn in range(options.runs + 1):
                took, size = seconds(act, read_tar, given)
                their_time, their_size = seconds(act, former, given)
                assert size == their_size
                if turn:  # the first is the warm-up
                    mine.append(took)
                    theirs.append(their_time)
            ratio = statistics.median(other / own for own, other in zip(mine, theirs, strict=True))
            ratios.append(ratio)
            speeds = [len(data) / 1e6 / statistics.median(times) for times in (mine, theirs)]
            print(f"  {kind:<18} {what:<18} {speeds[0]:7.0f}  former {speeds[1]:7.0f}   {ratio:5.2f}")
    print(f"  lowest ratio {min(ratios):.2f}, mean {statistics.mean(ratios):.2f}")
    sys.exit(min(ratios) < 0.9)


main()
