"""gzip members in relbuild's form with something behind their deflate stream, and one that only looks like it."""

from __future__ import annotations

import zlib
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


def naming_its_trailer() -> bytes:
    """A sound member in whose stored content its own checksum and size stand, four bytes before the end."""
    wanted = 0x5A17C0DE
    start = b"content " + wanted.to_bytes(4, "little") + (24).to_bytes(4, "little") + b" end"
    assert len(start) == 20
    content = start + _ending(start, wanted)
    assert zlib.crc32(content) == wanted
    stored = b"\x01" + len(content).to_bytes(2, "little") + (0xFFFF ^ len(content)).to_bytes(2, "little") + content
    return with_body(stored, gzip_member(content))


def _ending(start: bytes, wanted: int) -> bytes:
    """The four bytes that give `start` a CRC-32, which is linear in them."""
    zero = zlib.crc32(start + bytes(4))
    rows: dict[int, tuple[int, int]] = {}  # By highest bit: what is changed, by which bits of the four bytes.
    for bit in range(32):
        changed, by = zlib.crc32(start + (1 << bit).to_bytes(4, "little")) ^ zero, 1 << bit
        while changed and changed.bit_length() in rows:
            other, others = rows[changed.bit_length()]
            changed, by = changed ^ other, by ^ others
        rows[changed.bit_length()] = (changed, by)
    left, bits = zero ^ wanted, 0
    while left:
        changed, by = rows[left.bit_length()]
        left, bits = left ^ changed, bits ^ by
    return bits.to_bytes(4, "little")
