"""Deflate streams of fixed codes (RFC 1951, 3.2.6), sound and not, in members of relbuild's form."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from pipeline.gzip_members import gzip_member
from tests.support.hidden_members import HEADER, with_body

END = 256


def fixed_block(symbols: Iterable[int | tuple[int, int]]) -> bytes:
    """One block of literals and lengths (without extra bits); a pair is a distance code with its number of extra bits.

    Extra bits are zero.
    """
    bits = "110"  # The last block, of fixed codes; the lowest bit first.
    for symbol in (*symbols, END):
        match symbol:
            case (code, extra):
                bits += f"{code:05b}" + "0" * extra
            case int() if symbol < 144:
                bits += f"{0x30 + symbol:08b}"
            case int() if symbol < 256:
                bits += f"{0x190 + symbol - 144:09b}"
            case int() if symbol < 280:
                bits += f"{symbol - 256:07b}"
            case int():
                bits += f"{0xC0 + symbol - 280:08b}"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def stored_block(content: bytes) -> bytes:
    """A block of content as it is, which another one follows."""
    return b"\0" + len(content).to_bytes(2, "little") + (0xFFFF ^ len(content)).to_bytes(2, "little") + content


def member_of(body: bytes, content: bytes, *, length: int | None = None) -> bytes:
    """A member with this body and the trailer of `content`; `length`: another one than its own in its field."""
    trailer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    member = with_body(body, gzip_member(b"")[:HEADER] + trailer)
    return member if length is None else member[: HEADER - 4] + length.to_bytes(4, "little") + member[HEADER:]


def reserved_codes() -> dict[str, bytes]:
    """Members with codes that the format does not have, and the trailers of what libdeflate makes of them."""
    far = stored_block(b"a" * 32768)
    made = {f"length {code}": (fixed_block([97, code, (0, 0)]), b"a" * 259) for code in (286, 287)}
    made |= {f"distance {code}": (far + fixed_block([257, (code, 13)]), b"a" * 32771) for code in (30, 31)}
    return {name: member_of(*one) for name, one in made.items()}


def by_zlib(data: bytes) -> bytes | None:
    """What zlib reads of gzip members that follow each other; None if it refuses them."""
    found = b""
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            found += stream.decompress(data)
        except zlib.error:
            return None
        if not stream.eof:
            return None
        data = stream.unused_data
    return found
