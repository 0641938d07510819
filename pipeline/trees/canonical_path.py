"""Canonical paths in an image: the image's own symlinks in directories resolved.

A package may say `/bin/x` where `/bin` is a symlink to `usr/bin` that another package owns; the file lies at
`usr/bin/x`. Nothing in a layer may lie beneath a symlink, so every path is made canonical before anything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.errors import BuildError
from pipeline.model.tree import EntryKind, Tree

PATH_LIMIT = 4096
"""Bytes: PATH_MAX."""
FILE_NAME_LIMIT = 255
"""Bytes: NAME_MAX."""
WHITEOUT = ".wh."
"""Prefix of whiteouts' names in a layer (image-spec, layer.md)."""

_LINKS_LIMIT = 40
"""Symlinks followed in one path: the kernel's own bound."""
_ROUNDS = 8
"""Rounds of resolving symlinks' own paths: as many as symlinks in such paths are nested."""


def split_path(path: str) -> tuple[str, ...]:
    """Split an absolute path into its components.

    Raises BuildError `unsafe-path` for a path that is relative, too long, holds `.`, `..`, empty components or NUL, or
    a name that means a whiteout.
    """
    if path == "/":
        return ()
    encoded = path.encode(errors="surrogateescape")
    names = path.split("/")
    if names[0] or len(names) < 2:
        raise unsafe_path(path, "it is not absolute")
    if len(encoded) > PATH_LIMIT or "\0" in path:
        raise unsafe_path(path, f"it is longer than {PATH_LIMIT} bytes or holds a NUL")
    for name in names[1:]:
        if name in ("", ".", ".."):
            raise unsafe_path(path, f"it has the component '{name}'")
        if len(name.encode(errors="surrogateescape")) > FILE_NAME_LIMIT:
            raise unsafe_path(path, f"one of its components is longer than {FILE_NAME_LIMIT} bytes")
        if name.startswith(WHITEOUT):
            raise unsafe_path(path, f"'{name}' is a whiteout name, which marks a deletion in a layer")
    return tuple(names[1:])


def unsafe_path(path: str, why: str) -> BuildError:
    """Return the error for a path that cannot be put into an image."""
    return BuildError("unsafe-path", f"invalid path in an image: '{path[:200]}': {why}", place=path[:200])


class CanonicalPaths:
    """Resolver of canonical paths, from a map of canonical path → target of an image's symlinks."""

    def __init__(self, links: Mapping[str, str]) -> None:
        self._links = links
        self._known: dict[tuple[str, ...], str] = {(): ""}

    @classmethod
    def of(cls, links: Iterable[tuple[str, str]]) -> CanonicalPaths:
        """Make a resolver from symlinks' absolute paths as in packages' headers, and targets.

        Raises BuildError `unsafe-path`.
        """
        given = [(split_path(path), target) for path, target in links]
        canonical = cls({"/".join(names): target for names, target in given})
        for _ in range(_ROUNDS):
            links_now = {canonical.path(names): target for names, target in given}
            if links_now == canonical._links:
                break
            canonical = cls(links_now)
        return canonical

    @classmethod
    def in_tree(cls, tree: Tree) -> CanonicalPaths:
        """Make a resolver for the symlinks of a composed tree."""
        return cls({entry.path: entry.link for entry in tree if entry.kind is EntryKind.SYMLINK})

    def path(self, names: tuple[str, ...]) -> str:
        """Return the canonical path of `names`.

        Its directories are resolved, its last component is left as it is.
        """
        if not names:
            return ""
        above = self.directory(names[:-1])
        return f"{above}/{names[-1]}" if above else names[-1]

    def directory(self, names: tuple[str, ...]) -> str:
        """Return the canonical path of the directory `names`, all of it resolved."""
        known = self._known.get(names)
        if known is None:
            known = self._known[names] = self._step(self.directory(names[:-1]), names[-1], names, [_LINKS_LIMIT])
        return known

    def _step(self, above: str, name: str, whole: tuple[str, ...], left: list[int]) -> str:
        here = f"{above}/{name}" if above else name
        target = self._links.get(here)
        if target is None:
            return here
        left[0] -= 1
        if left[0] < 0:
            raise unsafe_path("/" + "/".join(whole), f"it follows more than {_LINKS_LIMIT} symlinks")
        at = "" if target.startswith("/") else above
        for part in target.split("/"):
            if part == "..":
                at = at.rpartition("/")[0]
            elif part not in ("", "."):
                at = self._step(at, part, whole, left)
        return at


def canonical_path(path: str, tree: Tree) -> str:
    """Return the canonical path of an absolute path in a composed tree.

    For many paths make one `CanonicalPaths.in_tree`.
    """
    return CanonicalPaths.in_tree(tree).path(split_path(path))
