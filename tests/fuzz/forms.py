"""Changes of an input that keep its form, so that the engine gets behind a parser, a checksum or base64.

Half of all changes are the engine's own, of bytes; the others are of values in JSON, of words, lines and tags in text,
of blocks in tar, of index entries in RPM headers, of numbers in RPM databases. Pure: the same input, seed and engine
give the same bytes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from pipeline.digest import Digest
from pipeline.packages.ndb_writer import (
    BLOB_TAIL,
    BLOCK,
    NDB_PAGE_SIZE,
    NDB_SLOT,
    PACKAGES_HEADER,
    PACKAGES_MAGIC,
    SLOT_MAGIC,
)

Engine = Callable[[bytes, int], bytes]
"""The engine's own change: the input and the most bytes that may come of it."""

Change = Callable[[bytes, random.Random, Engine], bytes]

SEPARATOR = b"\n====\n"
"""Between the two documents of an input that has two."""

_SPOTS_MOST = 2000
"""Values of a document among which one is chosen."""
_ENGINE_MOST = 1024
"""Bytes that the engine makes of one text in a document."""
_BLOCK = 512
_CHECKSUM = slice(148, 156)
_FIELDS = ((0, 100), (100, 108), (108, 116), (124, 136), (136, 148), (156, 157), (157, 257), (257, 265), (345, 500))
"""A tar header's name, mode, owner, size, time, type, link, magic and prefix."""

_VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "0", "a" * 300, "\0", "\n", "\u202e", "\ud800", "\u0660", "é", "..", "/", "sha256:" + "0" * 64),
    *([], {}, [[]], [{}], {"": ""}, [None], ["a", "a"]),
)
_WORDS = (
    *(
        b"0",
        b"-1",
        b"9" * 30,
        b"1e999",
        b"0x",
        b"null",
        b"~",
        b"true",
        b"\0",
        b"\xff",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
    ),
    *(b"\r", b"\n", b"\t", b" ", b"'", b'"', b"\\", b"{{", b"}}", b"{%", b"%}", b"[", b"]", b"{", b"}", b"(", b")"),
    *(b"..", b"/", b"//", b":", b"://", b"@", b"#", b"%", b"&", b"*", b"!", b"|", b">", b"<", b",", b"=", b"---"),
    *(b"&lt;", b"&#0;", b"<![CDATA[", b"]]>", b"<!--", b"<?", b"[::1]", b":99999", b"file:///", b"xn--", b"9999-99-99"),
)
_TEXT = (re.compile(rb"[\w.+-]+|\s+|[^\w\s]"), re.compile(rb"[^\n]*\n?"), re.compile(rb"<[^>]*>|[^<]+"))
"""What a text is cut into: words, lines, tags."""


def changed(target: str, data: bytes, most: int, seed: int, engine: Engine) -> bytes:
    """Another input of at most `most` bytes, made from `data`."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        return engine(data, most)
    made = FORMS.get(target, text)(data, chance, engine)
    return made if 0 < len(made) <= most else engine(data, most)


def document(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """A JSON document with some of its values changed; what is no JSON is the engine's."""
    try:
        top = [json.loads(data)]
    except (ValueError, RecursionError):
        return engine(data, len(data) + _ENGINE_MOST)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        _change_value(top, chance, engine)
    if not top:
        return b"{}"
    text = json.dumps(top[0], separators=(",", ":"), ensure_ascii=chance.random() < 0.8)
    return text.encode(errors="surrogatepass")


def _change_value(top: list[Any], chance: random.Random, engine: Engine) -> None:
    spots = list(_spots(top))
    if not spots:
        return
    holder, key = chance.choice(spots)
    other, other_key = chance.choice(spots)
    value = holder[key]
    kind = chance.randrange(7)
    if kind == 0 and holder is not top:
        del holder[key]
    elif kind == 1:
        # A copy: a value that held itself could not be written.
        holder[key] = _copy(other[other_key])
    elif kind == 2 and isinstance(holder, list):
        holder.insert(key, _copy(value))
    elif kind == 2:
        holder[chance.choice(("", "a", "é", str(other_key)))] = _copy(chance.choice(_VALUES))
    elif kind == 3:
        holder[key] = [value] if chance.random() < 0.5 else {str(other_key): value}
    elif kind < 6 and isinstance(value, str):
        holder[key] = _inner(value, chance, engine) or engine(value.encode(errors="replace"), _ENGINE_MOST).decode(
            errors="replace"
        )
    elif kind == 6 and isinstance(value, int):
        holder[key] = value + chance.choice((-1, 1, -value - 1, 1 << 40))
    else:
        holder[key] = _copy(chance.choice(_VALUES))


def _copy(value: object) -> object:
    return json.loads(json.dumps(value))


def _inner(value: str, chance: random.Random, engine: Engine) -> str:
    """A document in base64, changed; "" if it is none."""
    with contextlib.suppress(ValueError):
        plain = base64.b64decode(value, validate=True)
        if plain[:1] == b"{":
            return base64.b64encode(document(plain, chance, engine)).decode()
    return ""


def _spots(top: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each value by what holds it and its place there."""
    waiting: list[Any] = [top]
    seen = 0
    while waiting and seen < _SPOTS_MOST:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            seen += 1
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


def image(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """Manifest and config: the manifest mostly names the config that comes with it, and a layer for each diff_id."""
    manifest, _, config = data.partition(SEPARATOR)
    if chance.random() < 0.5:
        manifest = document(manifest, chance, engine)
    else:
        config = document(config, chance, engine)
    if chance.random() < 0.9:
        with contextlib.suppress(ValueError, RecursionError, TypeError, LookupError, AttributeError, ArithmeticError):
            value = json.loads(manifest)
            value["config"]["digest"] = str(Digest.of(config))
            layers = len(json.loads(config)["rootfs"]["diff_ids"])
            value["layers"] = [value["layers"][number % len(value["layers"])] for number in range(min(layers, 20))]
            manifest = json.dumps(value, separators=(",", ":")).encode()
    return manifest + SEPARATOR + config


def answer(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """A header and a document."""
    header, _, body = data.partition(SEPARATOR)
    if chance.random() < 0.5:
        return text(header, chance, engine) + SEPARATOR + body
    return header + SEPARATOR + document(body, chance, engine)


def text(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """Words, lines or tags taken out, doubled, exchanged, or replaced."""
    parts = chance.choice(_TEXT).findall(data) or [b""]
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, other = chance.randrange(len(parts)), chance.randrange(len(parts))
        until = at + chance.choice((1, 1, 2, 5))
        kind = chance.randrange(6)
        if kind == 0 and len(parts) > 1:
            del parts[at : min(until, at + len(parts) - 1)]
        elif kind == 1:
            parts[other:other] = parts[at:until]
        elif kind == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif kind == 3:
            parts[at] = parts[other]
        elif kind == 4:
            parts.insert(at, chance.choice(_WORDS))
        else:
            parts[at] = engine(parts[at], _ENGINE_MOST)
        parts = parts or [b""]
    return b"".join(parts)


def archive(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """Blocks of a tar archive taken out, doubled or exchanged, or a header's field changed; checksums fit again."""
    blocks = [data[at : at + _BLOCK].ljust(_BLOCK, b"\0") for at in range(0, len(data), _BLOCK)] or [bytes(_BLOCK)]
    at, other = chance.randrange(len(blocks)), chance.randrange(len(blocks))
    kind = chance.randrange(6)
    if kind == 0:
        del blocks[at]
    elif kind == 1:
        blocks.insert(other, blocks[at])
    elif kind == 2:
        blocks[at], blocks[other] = blocks[other], blocks[at]
    else:
        at = chance.choice([number for number, one in enumerate(blocks) if _is_header(one)] or [at])
        begin, end = chance.choice(_FIELDS)
        block = bytearray(blocks[at])
        new = blocks[other][begin:end] if kind == 3 else engine(bytes(block[begin:end]), end - begin)
        block[begin:end] = new.ljust(end - begin, b"\0")
        if kind == 4:
            block[156:157] = chance.choice(
                (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"x", b"g", b"L", b"K", b"S")
            )
        blocks[at] = bytes(block)
    return b"".join(_summed(block) for block in blocks)


def _is_header(block: bytes) -> bool:
    return block[257:262] == b"ustar"


def _summed(block: bytes) -> bytes:
    if not _is_header(block):
        return block
    blank = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(blank) + block[_CHECKSUM.stop :]


def words(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """Big-endian numbers of four bytes, as in an RPM header's index, changed a little or taken from elsewhere."""
    if len(data) < 8:
        return engine(data, len(data) + _ENGINE_MOST)
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, other = (4 * chance.randrange(len(made) // 4) for _ in range(2))
        value = int.from_bytes(made[at : at + 4], "big")
        kind = chance.randrange(4)
        if kind == 0:
            made[at : at + 4] = made[other : other + 4]
        elif kind == 1:
            made[at : at + 4] = ((value + chance.choice((-4, -1, 1, 4, 1 << 31))) & 0xFFFFFFFF).to_bytes(4, "big")
        elif kind == 2:
            made[at : at + 4] = chance.choice((0, 1, 2, 6, 8, 9, 0xFFFF, 0x7FFFFFFF)).to_bytes(4, "big")
        elif at + 16 <= len(made) and other + 16 <= len(made):
            made[at : at + 16] = made[other : other + 16]
    return bytes(made)


def database(data: bytes, chance: random.Random, engine: Engine) -> bytes:
    """Little-endian numbers of two or four bytes, as in Berkeley DB and ndb, or what `words` changes.

    The magic numbers of ndb's slots and the checksums of its blobs are right again.
    """
    made = bytearray(words(data, chance, engine) if len(data) < 8 or chance.random() < 0.3 else data)
    for _ in range(chance.choice((1, 1, 2, 4)) if len(made) >= 8 else 0):
        size = chance.choice((2, 4))
        at, other = (chance.randrange(0, len(made) - size, 2) for _ in range(2))
        value = int.from_bytes(made[at : at + size], "little")
        new = chance.choice((value - 1, value + 1, value ^ 1 << 8 * size - 1, 0, 1, 2, 3, 4, 7, 13, -1))
        new_bytes = (new & (1 << 8 * size) - 1).to_bytes(size, "little")
        made[at : at + size] = made[other : other + size] if chance.random() < 0.2 else new_bytes
    return _ndb_summed(made)


def _ndb_summed(data: bytearray) -> bytes:
    if data.startswith(PACKAGES_MAGIC):
        for slot in range(PACKAGES_HEADER.size, min(NDB_PAGE_SIZE, len(data) - NDB_SLOT.size), NDB_SLOT.size):
            data[slot : slot + len(SLOT_MAGIC)] = SLOT_MAGIC
            _, _, start, blocks = NDB_SLOT.unpack_from(data, slot)
            tail = (start + blocks) * BLOCK - BLOB_TAIL.size
            if NDB_PAGE_SIZE <= start * BLOCK < tail <= len(data) - BLOB_TAIL.size:
                struct.pack_into("<I", data, tail, zlib.adler32(data[start * BLOCK : tail]))
    return bytes(data)


FORMS: Mapping[str, Change] = MappingProxyType(
    {
        **dict.fromkeys(
            ("config", "index", "referrers", "artifact", "bundle", "statement", "predicates", "night"), document
        ),
        "layout": document,
        "answer": answer,
        "image": image,
        "tar": archive,
        "header": words,
        "rpmdb": database,
    }
)
"""The form of each target's inputs; those not named here are texts."""
