"""Compare two locks as text: whether both give the same image bytes."""

from __future__ import annotations

from pipeline.model.lock import LockSection
from pipeline.resolve import parse_lock


def same_packages(before: str, now: str) -> bool:
    """Return True if two locks, as text, give the same image bytes.

    They do with the same packages in the same layers, in the same order, on the same image. Which repository they came
    from, or what else there is by now, makes no difference.
    """
    return _bytes_of(before) == _bytes_of(now)


def _bytes_of(text: str) -> list[object]:
    lock = parse_lock(text, "the lock") if text else None
    return [_of(section) for section in lock.sections] if lock else []


def _of(section: LockSection) -> object:
    resolution = section.resolution
    chosen = sorted((str(one.package.nevra), one.package.checksum.hex, one.layer) for one in resolution.chosen)
    parent = section.parent.config.hex if section.parent else ""
    return resolution.platform, resolution.arch, chosen, resolution.order, section.build_time, parent
