"""Leave out of primary metadata what is for people only, before libsolv parses it.

Summaries, descriptions, addresses and the like are a third of the document. Nothing here reads them (people are shown
what packages' own headers say), so they are neither parsed nor loaded each time packages are chosen. Where markup is
that could hide a tag (a comment, a CDATA section, a processing instruction), everything is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_FOR_PEOPLE = re.compile(
    rb"<(summary|description|packager|url|rpm:license|rpm:group|rpm:buildhost)>[^<]*</\1>\s*"
    rb"|<rpm:header-range [^<>]*/>\s*"
)
_PACKAGE = b"<package "
_DECLARATION = b"<?xml"
_HIDING = (b"<!", b"<?")
_HELD_LIMIT = 16 << 20
"""Bytes of one package: the largest known have some 100 KiB."""


def without_texts(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield primary metadata without what is for people only.

    The result depends on the document alone, and not on where it is cut into pieces.
    """
    rest = iter(pieces)
    held = b""
    for piece in rest:
        held += piece
        declared = held.startswith(_DECLARATION) or _DECLARATION.startswith(held)
        begin = len(_DECLARATION) if declared else 0
        hiding = min((at for sign in _HIDING if (at := held.find(sign, begin)) >= 0), default=-1)
        whole = held.rfind(_PACKAGE, 0, hiding) if hiding >= 0 else held.rfind(_PACKAGE)
        if whole > 0:
            yield _FOR_PEOPLE.sub(b"", held[:whole])
            held = held[whole:]
        if hiding >= 0 or len(held) > _HELD_LIMIT:
            yield held
            yield from rest
            return
    yield _FOR_PEOPLE.sub(b"", held)
