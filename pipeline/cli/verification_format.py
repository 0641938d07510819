"""Formatting of a verification as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from pipeline.cli.move_format import limits_as_json
from pipeline.cli.progress_display import bytes_text
from pipeline.mirror.verification import Verified
from pipeline.model.enforcement import enforcement_lines


def verification_lines(found: Verified) -> Iterator[str]:
    """Yield what was verified of an image, for people."""
    yield f"{found.held.digest}: all digests, signatures and attestations are valid, and its tests passed"
    yield f"  signed as {', '.join(found.identities)}; {bytes_text(found.bytes_read)} of blobs read"
    yield from (f"  {line}" for line in enforcement_lines(found.limits))
    if found.tag is not None:
        until = datetime.fromtimestamp(found.tag.until / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield f"  tag '{found.tag.tag}' points here by signed move {found.tag.number}, valid until {until}" + (
            ": EXPIRED, accepted (--allow-stale)" if found.tag.stale else ""
        )
    if found.held.end_of_life:
        yield f"  end of life: {found.held.end_of_life}"
    for digest, types in found.attested:
        yield f"  {digest.short}  {', '.join(sorted(one.removeprefix('https://') for one in types))}"


def verification_as_json(found: Verified) -> dict[str, object]:
    """Return what was verified of an image as JSON values."""
    return {
        "digest": str(found.held.digest),
        "images": [str(image.digest) for image in found.held.images],
        "end_of_life": found.held.end_of_life or None,
        "identities": list(found.identities),
        "attested": {str(digest): list(types) for digest, types in found.attested},
        "bytes_read": found.bytes_read,
        "limits": limits_as_json(found.limits),
        "tag": None
        if found.tag is None
        else {
            "name": found.tag.tag,
            "signed_as": found.tag.identity,
            "number": found.tag.number,
            "until": found.tag.until,
            "stale": found.tag.stale,
        },
    }
