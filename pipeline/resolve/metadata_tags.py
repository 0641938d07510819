"""Refuse XML of repositories that would exhaust the stack of libsolv's parsers.

libsolv reads rich dependencies by recursion, a level for each bracket and each link of a chain, without a bound: some
fifty thousand end the process. In an attribute no `<` may stand (XML 1.0, 3.1), so a tag is as long at least as what it
nests. The document is not parsed for this: one block without a `<` is looked for, which costs milliseconds, piece by
piece as the document is decompressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pipeline.errors import VerificationError

TAG_LIMIT = 8 << 10
"""Bytes of a tag, and so of a dependency: the longest known have some hundred. A fifth of what was seen to be safe."""

_BLOCK = TAG_LIMIT // 2
"""Any run of TAG_LIMIT bytes has a whole block of these."""

_DECLARATION_LIMIT = 1024
_ENCODING = re.compile(rb"""\sencoding\s*=\s*["'](?:utf-?8|us-ascii|ascii|iso-8859-1)["']""", re.IGNORECASE)
"""Encodings in which the byte `<` is that sign and no other."""

_TAG = re.compile(
    rb"""</?[^\s<>/"'=]++(?:\s++[^\s<>/"'=]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'))*+\s*+/?>|<!--|<!\[CDATA\["""
)


def checked_tags(pieces: Iterable[bytes], *, kind: str, place: str) -> Iterator[bytes]:
    """Yield the document in `pieces` again, but nothing of it that was not checked.

    Refused are a tag above TAG_LIMIT, and what hides one: a document type, or another encoding. Each piece but the last
    ends before a tag. Raises VerificationError `metadata-malformed`.
    """
    held = b""
    begins = True
    for piece in pieces:
        held += piece
        if begins and len(held) < _DECLARATION_LIMIT:
            continue
        safe = _checked(held, kind, place, begins=begins, ends=False)
        begins = False
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        _checked(held, kind, place, begins=begins, ends=True)
        yield held


def _checked(data: bytes, kind: str, place: str, *, begins: bool, ends: bool) -> int:
    """Return how many bytes of `data` may be used.

    They end before its last tag, which may go on in the next piece.
    """
    why = _encoding_problem(data[:_DECLARATION_LIMIT]) if begins else ""
    if not why and data.find(b"<!DOCTYPE") >= 0:
        why = "it declares a document type"
    last = len(data) if ends else data.rfind(b"<")
    if last < 0 or len(data) - last > TAG_LIMIT:  # A text without end, or a tag: which is seen below.
        last = len(data)
    if not why and _has_long_tag(data, last):
        why = f"it has a tag of more than {TAG_LIMIT >> 10} KiB"
    if why:
        raise VerificationError(
            "metadata-malformed",
            f"'{kind}' is refused: {why}",
            place=place,
            hint="the repository's metadata is invalid; report it to its maintainer",
        )
    return last


def _encoding_problem(begin: bytes) -> str:
    text = begin.removeprefix(b"\xef\xbb\xbf")
    if text.lstrip()[:1] != b"<" or b"\0" in text:
        return "it is not XML in UTF-8"
    declaration, end, _ = text.partition(b"?>")
    if text.startswith(b"<?xml") and (not end or (b"encoding" in declaration and not _ENCODING.search(declaration))):
        return "it is not XML in UTF-8"
    return ""


def _has_long_tag(data: bytes, size: int) -> bool:
    """Return whether a tag that begins in the first `size` bytes is too long.

    What is before the first tag is text.
    """
    at = 0
    while at + _BLOCK <= size:
        if data.find(b"<", at, at + _BLOCK) >= 0:
            at += _BLOCK
            continue
        begin = data.rfind(b"<", 0, at)
        if begin >= 0 and not _TAG.match(data[begin : begin + TAG_LIMIT]):
            return True
        after = data.find(b"<", at)
        at = size if after < 0 else after - after % _BLOCK
    return False
