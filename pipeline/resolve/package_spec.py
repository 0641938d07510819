"""Match a line under `packages` with packages in the pool, as dnf does.

As libdnf's Query::filterSubject (query.cpp) and hawkey's Subject: forms of NEVRA from the most specific on,
then provides, then file paths; the first that matches anything decides. A bare name brings along what
obsoletes it. A glob over names asks for every name that it matches, one over architectures for every architecture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import solv

from pipeline.lazy_dataclasses import dataclass
from pipeline.resolve.listed_files import in_primary, names_unlisted_path
from pipeline.resolve.pool import PackagePool

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

_WILDCARD = re.compile(r"[*?[]")

_SEVERAL = frozenset({"and", "if", "unless", "else"})
"""Words of rich dependencies that no single package may satisfy; with `or`, `with` and `without` any provider does."""


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """The candidates for a request: of each group one package is to be installed.

    `rich` is the dependency itself where a set of packages cannot express it.
    """

    groups: tuple[tuple[int, ...], ...]
    rich: solv.Dep | None = None

    @property
    def everything(self) -> set[int]:
        """Return all solvables of all groups."""
        return {one for group in self.groups for one in group}


def is_glob(text: str) -> bool:
    """Return True if the text holds a wildcard."""
    return bool(_WILDCARD.search(text))


def is_group(text: str) -> bool:
    """Return True if a request is for a group of packages: `@core`, `@^minimal-environment`."""
    return text.startswith("@")


def _is_path(text: str) -> bool:
    return text.startswith(("/", "*/"))


def names_unlisted_file(text: str) -> bool:
    """Return True if a request, rich or not, may be for files that only file lists have.

    The text alone decides, and no answer of a pool: with file lists loaded for an earlier recipe it would be another.
    """
    if text.startswith("("):
        return names_unlisted_path(text)
    wildcard = _WILDCARD.search(text)
    known = text if wildcard is None else f"{text[: wildcard.start()]}…"
    return _is_path(text) and not in_primary(known)


def searches_file_lists(text: str) -> bool:
    """Return True if file lists are searched for a request whatever is remembered.

    Remembered are the owners of plain paths.
    """
    return names_unlisted_file(text) and (not text.startswith("/") or is_glob(text) or len(text.split()) > 1)


def needs_file_lists(package_pool: PackagePool, text: str) -> bool:
    """Return True if a request is matched with file lists in the index of provides.

    These are globs that fit no package's name, but perhaps a file's path, and paths unless their owners alone match:
    where a package provides the path, its owners count if a dependency names the path, and so do excluded ones.
    """
    if not names_unlisted_file(text):
        return bool(_WILDCARD.match(text)) and not _is_path(text) and not _by_nevra(package_pool, text)[0]
    if searches_file_lists(text) or package_pool.has_headers or _by_provides(package_pool, text):
        return True
    return not package_pool.listed(text, glob=False, everywhere=True)


def named_in(text: str) -> Iterator[str]:
    """Yield the dependencies and names that `match_request` may ask about for a request."""
    if not is_glob(text):
        yield text
        yield from (found[1] for form in _FORMS if (found := form.fullmatch(text)))


def match_request(package_pool: PackagePool, text: str) -> RequestMatch:
    """Return the packages that match `text`; no groups when there are none."""
    if text.startswith("("):
        rich = package_pool.dependency(text)
        found = package_pool.providers(rich)
        if not _SEVERAL.isdisjoint(re.split(r"[\s()]+", text)):
            return RequestMatch((tuple(found),), rich)
        return RequestMatch((tuple(found),) if found else ())
    found, just_name, by_arch = _by_nevra(package_pool, text)
    if not found:
        found = _by_provides(package_pool, text)
    if not found and _is_path(text):
        found = package_pool.listed(text, glob=is_glob(text), everywhere=names_unlisted_file(text))
    if not found:
        return RequestMatch(())
    by_name = is_glob(text) and not _is_path(text)
    groups = _per_name(package_pool, found, by_arch=by_arch) if by_name else [found]
    if just_name:
        groups = [sorted({*group, *package_pool.obsoleters(group)}) for group in groups]
    return RequestMatch(tuple(tuple(group) for group in groups))


def match_name(package_pool: PackagePool, name: str, *, arch: str | None = None) -> RequestMatch:
    """Return the packages called `name` (of `arch`, if given), and those that obsolete them."""
    found = [one for one in _named(package_pool, name) if arch in (None, package_pool.nevra(one).arch)]
    return RequestMatch((tuple(sorted({*found, *package_pool.obsoleters(found)})),) if found else ())


def match_nevra(package_pool: PackagePool, text: str) -> list[int]:
    """Match packages by forms of NEVRA only, as in dnf's `excludepkgs`; not disabled ones."""
    return _by_nevra(package_pool, text)[0]


def _by_nevra(package_pool: PackagePool, text: str) -> tuple[list[int], bool, bool]:
    """Return matching packages.

    Also whether the text was only a name, and whether it has a glob in place of the architecture.
    """
    for form in _FORMS:
        parts = form.fullmatch(text)
        if not parts:
            continue
        name, epoch, version, release, arch = parts.groups()
        chosen = [
            one
            for one in _named(package_pool, name)
            if _fits(package_pool, one, epoch=epoch, version=version, release=release, arch=arch)
        ]
        if chosen:
            return chosen, not (epoch or version or release or arch), is_glob(arch)
    if is_glob(text) and not _is_path(text):
        found = [one for one in package_pool.enabled(package_pool.solvables()) if _whole(package_pool, one, text)]
        return found, False, False
    return [], False, False


def _named(package_pool: PackagePool, name: str) -> list[int]:
    if not is_glob(name):
        return package_pool.called(name)
    flags = solv.Selection.SELECTION_NAME | solv.Selection.SELECTION_GLOB
    return package_pool.enabled(package_pool.pool.select(name, flags).solvables())


def _fits(
    package_pool: PackagePool, solvable: int, *, epoch: str | None, version: str, release: str, arch: str
) -> bool:
    nevra = package_pool.nevra(solvable)
    return (
        (not epoch or int(epoch) == nevra.epoch)
        and (not version or fnmatchcase(nevra.version, version))
        and (not release or fnmatchcase(nevra.release, release))
        and (not arch or fnmatchcase(nevra.arch, arch))
    )


def _whole(package_pool: PackagePool, solvable: int, pattern: str) -> bool:
    nevra = package_pool.nevra(solvable)
    epoch = f"{nevra.epoch}:" if ":" in pattern else ""
    return fnmatchcase(f"{nevra.name}-{epoch}{nevra.version}-{nevra.release}.{nevra.arch}", pattern)


def _by_provides(package_pool: PackagePool, text: str) -> list[int]:
    if is_glob(text):
        flags = solv.Selection.SELECTION_PROVIDES | solv.Selection.SELECTION_GLOB | solv.Selection.SELECTION_REL
        return package_pool.enabled(package_pool.pool.select(text, flags).solvables())
    return package_pool.enabled(
        package_pool.pool.id2solvable(one) for one in package_pool.providers(package_pool.dependency(text))
    )


def _per_name(package_pool: PackagePool, solvables: list[int], *, by_arch: bool) -> list[list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for one in solvables:
        nevra = package_pool.nevra(one)
        groups.setdefault((nevra.name, nevra.arch if by_arch else ""), []).append(one)
    return [groups[key] for key in sorted(groups)]
