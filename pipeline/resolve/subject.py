"""Match a line under `packages` with packages, as dnf does.

As libdnf's Query::filterSubject (query.cpp) and hawkey's Subject: forms of NEVRA from the most specific on,
then provides, then file paths; the first that matches anything decides. A bare name brings along what
obsoletes it. A glob over names asks for every name that it matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import solv

from pipeline.resolve.universe import Universe, in_primary

_NAME = r"([^:(/=<> ]+)"
_EPOCH = r"(?:([0-9]+):)?"
_PART = r"([^-:(/=<> ]+)"
_ARCH = r"([^-:.(/=<> ]+)"
_NONE = "()"
_FORMS = (
    re.compile(f"{_NAME}-{_EPOCH}{_PART}-{_PART}\\.{_ARCH}"),
    re.compile(f"{_NAME}{_NONE}{_NONE}{_NONE}\\.{_ARCH}"),
    re.compile(f"{_NAME}{_NONE}{_NONE}{_NONE}{_NONE}"),
    re.compile(f"{_NAME}-{_EPOCH}{_PART}-{_PART}{_NONE}"),
    re.compile(f"{_NAME}-{_EPOCH}{_PART}{_NONE}{_NONE}"),
)
"""NEVRA, name.arch, name, NEVR, NEV: HY_FORMS_MOST_SPEC."""


@dataclass(frozen=True, slots=True)
class Match:
    """The candidates for a request: of each group one package is to be installed.

    `rich` is the dependency itself where a set of packages could not say what it means.
    """

    groups: tuple[tuple[int, ...], ...]
    rich: solv.Dep | None = None

    @property
    def everything(self) -> set[int]:
        """All solvables of all groups."""
        return {one for group in self.groups for one in group}


def is_glob(text: str) -> bool:
    """Return True if the text holds a wildcard."""
    return any(sign in text for sign in "*[?")


def match(universe: Universe, text: str) -> Match:
    """The packages that `text` asks for; no groups when there are none."""
    if text.startswith("("):
        rich = universe.dependency(text)
        return Match((tuple(universe.providers(rich)),), rich)
    found, just_name = _by_nevra(universe, text)
    if not found:
        found = _by_provides(universe, text)
    if not found and text.startswith(("/", "*/")):
        if is_glob(text) or not in_primary(text):
            universe.load_filelists()
        flags = solv.Selection.SELECTION_FILELIST | (solv.Selection.SELECTION_GLOB if is_glob(text) else 0)
        found = universe.enabled(universe.pool.select(text, flags).solvables())
    if not found:
        return Match(())
    by_name = is_glob(text) and not text.startswith(("/", "*/"))
    groups = _per_name(universe, found) if by_name else [found]
    if just_name:
        groups = [sorted({*group, *_obsoleters(universe, group)}) for group in groups]
    return Match(tuple(tuple(group) for group in groups))


def match_nevra(universe: Universe, text: str) -> list[int]:
    """Packages by forms of NEVRA only, as in dnf's `excludepkgs`; disabled ones are not found."""
    return _by_nevra(universe, text)[0]


def _by_nevra(universe: Universe, text: str) -> tuple[list[int], bool]:
    """Matching packages, and whether the text was just a name."""
    for form in _FORMS:
        found = form.fullmatch(text)
        if not found:
            continue
        name, epoch, version, release, arch = found.groups()
        chosen = [
            one
            for one in _named(universe, name)
            if _fits(universe, one, epoch=epoch, version=version, release=release, arch=arch)
        ]
        if chosen:
            return chosen, not (epoch or version or release or arch)
    if is_glob(text):
        return [one for one in universe.enabled(universe.solvables()) if _whole(universe, one, text)], False
    return [], False


def _named(universe: Universe, name: str) -> list[int]:
    flags = solv.Selection.SELECTION_NAME | (solv.Selection.SELECTION_GLOB if is_glob(name) else 0)
    return universe.enabled(universe.pool.select(name, flags).solvables())


def _fits(universe: Universe, solvable: int, *, epoch: str | None, version: str, release: str, arch: str) -> bool:
    nevra = universe.nevra(solvable)
    return (
        (not epoch or int(epoch) == nevra.epoch)
        and (not version or fnmatchcase(nevra.version, version))
        and (not release or fnmatchcase(nevra.release, release))
        and (not arch or fnmatchcase(nevra.arch, arch))
    )


def _whole(universe: Universe, solvable: int, pattern: str) -> bool:
    nevra = universe.nevra(solvable)
    epoch = f"{nevra.epoch}:" if ":" in pattern else ""
    return fnmatchcase(f"{nevra.name}-{epoch}{nevra.version}-{nevra.release}.{nevra.arch}", pattern)


def _by_provides(universe: Universe, text: str) -> list[int]:
    if is_glob(text):
        flags = solv.Selection.SELECTION_PROVIDES | solv.Selection.SELECTION_GLOB | solv.Selection.SELECTION_REL
        return universe.enabled(universe.pool.select(text, flags).solvables())
    return universe.enabled(universe.pool.id2solvable(one) for one in universe.providers(universe.dependency(text)))


def _per_name(universe: Universe, solvables: list[int]) -> list[list[int]]:
    names: dict[str, list[int]] = {}
    for one in solvables:
        names.setdefault(universe.pool.id2solvable(one).name, []).append(one)
    return [names[name] for name in sorted(names)]


def _obsoleters(universe: Universe, solvables: list[int]) -> Iterator[int]:
    """Yield the packages that obsolete any of `solvables`.

    Obsoletes match by name: POOL_FLAG_OBSOLETEUSESPROVIDES is off, as in dnf.
    """
    for one in solvables:
        solvable = universe.pool.id2solvable(one)
        yield from universe.enabled(universe.pool.whatmatchessolvable(solv.SOLVABLE_OBSOLETES, solvable))
