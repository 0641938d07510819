"""Parse an RPM header's License tag as an SPDX expression, or name it as our own licence.

The expressions are those of SPDX 2.3, annex D. Distributions moved to SPDX's names some years ago; older or other
packages say `GPLv2+` or `See COPYING`. Such a tag is kept as it is, as a licence with a name of our own; nothing is
guessed.

The library's list has 2,600 licences. What it makes of a tag depends on those whose names have a word of the tag, so it
is given these alone. What all tags of an image came to is remembered in the store
([why](../../docs/decisions/0070-what-documents-cost.md)).
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.digest import digest_file, identity
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.json_form import from_json, to_json
from pipeline.snapshots import START, file_stamp, process_started
from pipeline.store import Store

if TYPE_CHECKING:
    from license_expression import Licensing

LICENCE_LIMIT = 4096
"""Characters of a tag that are parsed: Fedora's longest (of texlive) has about two thousand."""

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
"""A distribution's name of a licence that is not in SPDX's list, such as `LicenseRef-Fedora-Public-Domain`."""
_WORD = re.compile(r"[^\s()]+")
"""A word as the library compares it, in lower case, with those of licences' names."""
_LIBRARY = ("license_expression", "boolean")
"""Packages whose files decide what a tag comes to."""
_MODULE = Path(__file__)
"""This module's file: how it reads the list decides, too."""
_KEPT = 4096
"""Tags of which the meaning is kept in memory."""


@dataclass(frozen=True, slots=True)
class Licence:
    """A tag's meaning: its expression (None if it is none) and the sorted `LicenseRef-…` in it."""

    expression: str | None
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Licences:
    """The meaning of each of some sorted tags, as the store remembers them."""

    meanings: tuple[Licence, ...]


_NONE = Licence(None, ())
_remembered: dict[str, Licence] = {}
"""The meaning of tags that the store remembered."""


def licence_expression(tag: str) -> str | None:
    """Parse a tag as an SPDX expression (may contain `LicenseRef-…`); None if it is not one."""
    return _licence(tag).expression


def licence_references(tag: str) -> tuple[str, ...]:
    """Return the `LicenseRef-…` in a tag that is an expression, sorted."""
    return _licence(tag).references


def own_licence(tag: str) -> str:
    """Return the name of our own `LicenseRef-` licence for other tags, by the tag's digest."""
    return f"LicenseRef-relbuild-{hashlib.sha256(tag.encode()).hexdigest()[:16]}"


def prepare_licences(tags: Iterable[str], store: Store, now: float) -> None:
    """Parse tags, or recall what they came to, and keep it in memory.

    `now`: seconds since the epoch. Nothing is recalled or remembered if the library may have changed since this process
    began, which may have loaded it before.
    """
    wanted, began = sorted(set(tags)), process_started(now)
    files = _files_before(began)
    name = None if files is None else identity("licences", 2, tags=wanted, **files)
    known = None if name is None else store.recall_as(name, lambda value: from_json(_Licences, value))
    if known is None or len(known.meanings) != len(wanted):
        known = _Licences(tuple(map(_parsed, wanted)))
        if name is not None and _files_before(began) == files:
            store.remember(name, to_json(known), sync=False)
    if len(_remembered) > _KEPT:
        _remembered.clear()
    _remembered.update(zip(wanted, known.meanings, strict=True))


def load_licence_list() -> None:
    """Load the library's list of licences, which `prepare_licences` needs for tags that are new."""
    _spdx_list()


def _licence(tag: str) -> Licence:
    known = _remembered.get(tag)
    return _parsed(tag) if known is None else known


@lru_cache(maxsize=_KEPT)
def _parsed(tag: str) -> Licence:
    if not tag.strip() or len(tag) > LICENCE_LIMIT:
        return _NONE
    try:
        licensing = _licensing(frozenset(_WORD.findall(tag.lower())))
        parsed = licensing.parse(tag, strict=True)
        unknown = licensing.unknown_license_keys(parsed)
    except Exception:  # For malformed expressions, the library raises its own errors, assertions and others.
        return _NONE
    if not all(_REFERENCE.fullmatch(key) for key in unknown):
        return _NONE
    return Licence(str(parsed), tuple(sorted(unknown)))


def _licensing(words: frozenset[str]) -> Licensing:
    """Return the library with its licences whose names have one of some words."""
    from license_expression import LicenseSymbol, Licensing

    return Licensing(
        [
            LicenseSymbol(key, aliases=aliases, is_exception=is_exception)
            for key, aliases, is_exception, known in _spdx_list()
            if not words.isdisjoint(known)
        ]
    )


@cache
def _spdx_list() -> tuple[tuple[str, tuple[str, ...], bool, tuple[str, ...]], ...]:
    """Return key, aliases, whether it is an exception, and words of each licence of the library.

    Names that its makers added are left out: such aliases would turn a distribution's `LicenseRef-` into another
    licence.
    """
    from license_expression import get_license_index

    found = []
    for one in get_license_index():
        key: str = one.get("spdx_license_key") or ""
        if not key or _REFERENCE.fullmatch(key):
            continue
        aliases = tuple(name for name in one.get("other_spdx_license_keys", ()) if not _REFERENCE.fullmatch(name))
        words = tuple(_WORD.findall(" ".join((key, *aliases)).lower()))
        found.append((key, aliases, bool(one.get("is_exception", False)), words))
    return tuple(sorted(found))


def _files_before(began: float) -> dict[str, object] | None:
    """Return the versions, stamps and digest of the files that decide what a tag comes to.

    They are the library's and this module's. None if one of them changed after the process `began` (seconds since the
    epoch), or just before, or if they are not known.
    """
    try:
        listed = [path for name in _LIBRARY for path in _library_paths(name)]
        found = [(str(path), path.stat()) for path in listed]
        newest = max(status.st_ctime_ns for _, status in (*found, ("", _MODULE.stat())))
        if newest >= (began - START) * 1e9:
            return None
        return {
            "library": {name: version(name) for name in ("license-expression", "boolean.py")},
            "stamps": [[path, *file_stamp(status)] for path, status in found if stat.S_ISREG(status.st_mode)],
            "module": digest_file(_MODULE),
        }
    except (OSError, ImportError, ValueError):
        return None


def _library_paths(name: str) -> Iterator[Path]:
    """Yield a package's folders and files. Raises ImportError if it has no files, ValueError."""
    found = find_spec(name)
    folders = (found.submodule_search_locations or ()) if found is not None else ()
    files = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.suffix in (".py", ".json"))
    if not files:
        raise ImportError(f"{name} has no files")
    yield from sorted({path.parent for path in files})  # They change when a file is removed.
    yield from files
