"""Paths in dependencies: those in primary metadata, and those that need file lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DEPENDENCIES_MOST = 1000
"""Dependencies on unlisted paths that are remembered of a repository: the largest have some hundred."""

_IN_PRIMARY = re.compile(r"/etc/|/usr/lib/sendmail$|.*bin/")
"""Paths that createrepo_c puts into primary metadata (and libsolv's repodata_filelistfilter_matches)."""

_PATH = re.compile(r"(?:^|(?<=[( ]))/[^ )]+")

_ENTRY = b"<rpm:entry"
_NAMED = b'<rpm:entry name="'
_STARTS = (b'name="/', b'name="(', b'name="&')
"""Beginnings of a dependency that may name a path: a path, a rich dependency, an escaped character."""


def in_primary(path: str) -> bool:
    """Return True if primary metadata lists this path, if any package has it."""
    return bool(_IN_PRIMARY.match(path))


def names_unlisted_path(dependency: str) -> bool:
    """Return True if a dependency, rich or not, names a path that primary metadata leaves out."""
    return any(not in_primary(path) for path in _PATH.findall(dependency))


class UnlistedDependencies:
    """Collector of the dependencies in primary metadata that name unlisted paths."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._found: set[str] = set()
        self._odd = False

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces again, of which no tag crosses a border."""
        for piece in pieces:
            # Another form than createrepo_c's may be as good, but is not understood here.
            self._odd = self._odd or piece.count(_ENTRY) != piece.count(_NAMED) or b"<!" in piece
            if not self._odd:
                self._look(piece)
            yield piece

    def _look(self, piece: bytes) -> None:
        import html  # Only where metadata is new.

        for start in _STARTS:
            at = piece.find(start)
            while at >= 0:
                begin = at + len(b'name="')
                name = piece[begin : piece.find(b'"', begin)]
                if name not in self._seen:
                    self._seen.add(name)
                    text = html.unescape(name.decode(errors="replace"))
                    if names_unlisted_path(text):
                        self._found.add(text)
                at = piece.find(start, begin)

    @property
    def result(self) -> list[str] | None:
        """The dependencies, sorted; None if there may be others, or they are too many."""
        return None if self._odd or len(self._found) > DEPENDENCIES_MOST else sorted(self._found)
