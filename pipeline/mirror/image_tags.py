"""Compute an image's tags from its version: the immutable one and the floating ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.digest import Digest

LATEST = "latest"

_LONGEST = 128
"""Characters of a tag (distribution-spec 1.1)."""

_IMMUTABLE = re.compile(r".+-\d{8}-(?P<short>[0-9a-f]{12})")


def version_tag(version: str) -> str:
    """Return the version as a tag: characters that a tag cannot have become `-`.

    `latest` if the result is not a valid tag.
    """
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "-", version)[:_LONGEST]
    return cleaned if re.match(r"[A-Za-z0-9_]", cleaned) else LATEST


def immutable_tag(version: str, created: int, digest: Digest) -> str:
    """Return the immutable tag: `9.7.4-20261124-`, then twelve hex digits of the digest.

    `created` (seconds since the epoch) is the image's creation time and not today's, so that each digest has one such
    tag: publishing again finds it and changes nothing.
    """
    ending = f"-{datetime.fromtimestamp(created, UTC):%Y%m%d}-{digest.short}"
    return version_tag(version)[: _LONGEST - len(ending)] + ending


def named_digest_prefix(tag: str) -> str | None:
    """Return the twelve hex digits in a tag of the form of an immutable tag; None for others."""
    found = _IMMUTABLE.fullmatch(tag)
    return found["short"] if found is not None else None


def names_digest(tag: str, digest: Digest) -> bool:
    """Return whether a tag has the form of the immutable tag of this digest.

    A tag is immutable if it names what it points to. Others may look alike, as one with a commit in its name.
    """
    return named_digest_prefix(tag) == digest.short


def floating_tags(version: str) -> tuple[str, ...]:
    """Return the floating tags of a version: `9.7.4` → `9.7.4`, `9.7`, `9`, `latest`.

    A pre-release (rpm's `~`) moves the tag of its own version only.
    """
    whole = version_tag(version)
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if "~" in version or not numbers:
        return (whole,)
    parts = numbers[0].split(".")
    shorter = [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    return tuple(dict.fromkeys((whole, *shorter, LATEST)))
