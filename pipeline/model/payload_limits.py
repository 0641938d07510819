"""The bounds on what a package may unpack to."""

from __future__ import annotations

import stat

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import FileFlag, PackageHeader

PAYLOAD_SIZE_DEFAULT = 32 << 30
"""Bytes that the files of one package may have. The largest known packages (CUDA, debug information of kernels and
browsers) have some GiB, and the files of a whole layer are bounded by 256 GiB."""

PAYLOAD_RATIO_DEFAULT = 250
"""Times the size of the package's file. Of 327 real packages none exceeds 25 (libmagic's database), and debug
information stays below 30; gzip at its best comes to 1,000, and zstd of zeros to 30,000 and more."""

RATIO_FLOOR = 64 << 20
"""Bytes from which on the ratio counts: a small package of sparse or empty files harms nobody."""


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """Bounds as a recipe or a platform states them; None: not stated.

    `size` is bytes of all files of one package, `ratio` that size over the size of the package's file.
    """

    size: int | None = None
    ratio: int | None = None

    def over(self, lower: PayloadLimits) -> PayloadLimits:
        """Return these bounds, with those of `lower` where they state none."""
        return PayloadLimits(
            self.size if self.size is not None else lower.size, self.ratio if self.ratio is not None else lower.ratio
        )


PAYLOAD_LIMITS = PayloadLimits(PAYLOAD_SIZE_DEFAULT, PAYLOAD_RATIO_DEFAULT)
"""The bounds where neither a recipe nor its platform states one."""


def content_size(header: PackageHeader) -> int:
    """Return the bytes of all regular files that a package brings.

    Hard links count once, by the largest of their sizes.
    """
    sizes: dict[int, int] = {}
    for file in header.files:
        if stat.S_ISREG(file.mode) and not file.flags & FileFlag.GHOST:
            sizes[file.inode] = max(file.size, sizes.get(file.inode, 0))
    return sum(sizes.values())


def exceeded_limit(size: int, file_size: int, limits: PayloadLimits) -> str:
    """Return in words which bound `size` bytes in a package of `file_size` exceed, "" if none."""
    told = limits.over(PAYLOAD_LIMITS)
    assert told.size is not None
    assert told.ratio is not None
    if size > told.size:
        return f"more than the {told.size} bytes that one package may have"
    if size > RATIO_FLOOR and size > told.ratio * file_size:
        return f"more than {told.ratio} times its file's {file_size} bytes"
    return ""
