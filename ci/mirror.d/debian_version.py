"""Debian version numbers: order (as ``dpkg --compare-versions``) and RPM spelling.

The order is the one of Debian Policy 5.6.12, which differs from RPM's: letters sort before
punctuation, and ``~`` sorts before the end of the string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cmp_to_key, lru_cache

_CHUNK = re.compile(r"([^0-9]*)([0-9]*)")


@dataclass(frozen=True, slots=True)
class Evr:
    """Epoch (None when absent), version and release, as an RPM header holds them."""

    epoch: int | None
    version: str
    release: str


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _compare_part(left: str, right: str) -> int:
    for (left_text, left_digits), (right_text, right_digits) in zip(*_aligned(left, right), strict=True):
        # The end of a string weighs 0: after "~", before everything else.
        left_weights = [*map(_weight, left_text), 0]
        right_weights = [*map(_weight, right_text), 0]
        if left_weights != right_weights:
            return -1 if left_weights < right_weights else 1
        left_number, right_number = int(left_digits or 0), int(right_digits or 0)
        if left_number != right_number:
            return -1 if left_number < right_number else 1
    return 0


def _aligned(left: str, right: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    left_chunks, right_chunks = _CHUNK.findall(left), _CHUNK.findall(right)
    length = max(len(left_chunks), len(right_chunks))
    left_chunks += [("", "")] * (length - len(left_chunks))
    right_chunks += [("", "")] * (length - len(right_chunks))
    return left_chunks, right_chunks


def split(version: str) -> tuple[int | None, str, str]:
    """Return epoch, upstream version and Debian revision ("" when native)."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch) if epoch else None), upstream, revision


@lru_cache(maxsize=65536)
def compare(left: str, right: str) -> int:
    """Return a negative, zero or positive number, like a C comparison."""
    left_epoch, left_upstream, left_revision = split(left)
    right_epoch, right_upstream, right_revision = split(right)
    by_epoch = (left_epoch or 0) - (right_epoch or 0)
    return by_epoch or _compare_part(left_upstream, right_upstream) or _compare_part(left_revision, right_revision)


newest_last = cmp_to_key(compare)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Whether ``version`` fulfils ``(operator wanted)``; the operators are Debian's."""
    order = compare(version, wanted)
    return {
        "<<": order < 0,
        "<=": order <= 0,
        "=": order == 0,
        ">=": order >= 0,
        ">>": order > 0,
    }[operator]


def to_evr(version: str, release_suffix: str) -> Evr:
    """Spell a Debian version in RPM's alphabet (letters, digits and ``. _ + ~ ^``)."""
    epoch, upstream, revision = split(version)
    spelled = re.sub(r"[^A-Za-z0-9._+~^]", ".", upstream)
    release = re.sub(r"[^A-Za-z0-9._+~^]", ".", revision or "1")
    return Evr(epoch, spelled, f"{release}.{release_suffix}")
