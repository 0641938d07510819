"""Locks as text: compare them, take one section, join sections."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.lock import Lock, LockSection
from pipeline.resolve import format_lock, parse_lock


def same_packages(before: str, now: str) -> bool:
    """Return True if two locks, as text, give the same image bytes.

    They do with the same packages in the same layers, in the same order, on the same image. Which repository they came
    from, or what else there is by now, makes no difference.
    """
    return _bytes_of(before) == _bytes_of(now)


def lock_of_architecture(text: str, platform: str, arch: str) -> str:
    """Return a lock, as text, with its section for one architecture alone; "" if it has none."""
    lock = parse_lock(text, "the lock") if text else None
    section = lock.section(platform, arch) if lock else None
    return format_lock(Lock(lock.recipe, (section,))) if lock and section else ""


def joined_locks(texts: Sequence[str]) -> str:
    """Return the lock, as text, with the sections of all given locks of one recipe."""
    locks = [parse_lock(text, "the lock") for text in texts]
    return format_lock(Lock(locks[0].recipe, tuple(section for lock in locks for section in lock.sections)))


def _bytes_of(text: str) -> list[object]:
    lock = parse_lock(text, "the lock") if text else None
    return [_of(section) for section in lock.sections] if lock else []


def _of(section: LockSection) -> object:
    resolution = section.resolution
    chosen = sorted((str(one.package.nevra), one.package.checksum.hex, one.layer) for one in resolution.chosen)
    parent = section.parent.config.hex if section.parent else ""
    return resolution.platform, resolution.arch, chosen, resolution.order, section.build_time, parent
