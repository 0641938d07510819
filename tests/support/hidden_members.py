"""gzip members in relbuild's form with something behind their deflate stream."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.gzip_members import gzip_member

HEADER, TRAILER = 20, 8


def with_body(body: bytes, like: bytes) -> bytes:
    """A member with the header and trailer of `like`, and this body."""
    header = like[: HEADER - 4] + (HEADER + len(body) + TRAILER).to_bytes(4, "little")
    return header + body + like[-TRAILER:]


def hiding(content: bytes, behind: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Members of `content` in which something follows its deflate stream."""
    member = gzip_member(content)
    body, trailer = member[HEADER:-TRAILER], member[-TRAILER:]
    other = gzip_member(b"other" * len(content))[HEADER:-TRAILER]
    found = {
        "a byte": b"x",
        "a zero": b"\0",
        "junk": b"junk" * 100,
        "its own trailer": trailer,
        "its own trailer and a byte": trailer + b"x",
        "its own trailer, most of it once more": trailer + trailer[:7],
        "its own trailer and another member's stream": trailer + other,
        "its own trailer and the same stream": trailer + body,
        "another stream": other,
        "a second whole member of the same content": trailer + member[:-TRAILER],
        "a whole member of another's form": trailer + b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body,
    }
    return {name: with_body(body + hidden, member) for name, hidden in {**found, **(behind or {})}.items()}
