"""Compose the entries of all layers from RPM headers, finding conflicts and unsafe paths.

rpm's rules for files that several packages own are followed (rpm, lib/transaction.c, handleOverlappedFiles and
rpmfilesCompare): what is the same in mode, owner, and content or target is shared, of two ELF files the
preferred colour wins, a ghost never conflicts, and anything else is a conflict; also two directories of
different mode or owner. All problems of all packages are reported at once.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from types import MappingProxyType

from pipeline.errors import BuildError, Problem
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.accounts import AccountTable
from pipeline.model.header import FileFlag, FileRecord, PackageHeader
from pipeline.model.tree import (
    Entry,
    EntryKind,
    Tree,
    kind_of,
)
from pipeline.trees.canonical_path import CanonicalPaths, split_path
from pipeline.trees.capabilities import CAPABILITY_XATTR, capability_attribute
from pipeline.trees.composition import (
    STATE_NORMAL,
    STATE_NOT_INSTALLED,
    STATE_WRONG_COLOR,
    ComposedLayer,
    ComposeOptions,
    Composition,
    Part,
)
from pipeline.trees.exclusion import excluded_files

TREE_ENTRIES_LIMIT = 4_000_000
"""Files in all packages together: ten times a full desktop installation."""

_PERMISSIONS = 0o7777
_PREFERRED_COLOR = 2
"""The colour of 64-bit ELF files: rpm's `_prefer_color` on multilib architectures."""


_PARENT = -1
"""The layer number of claims of a parent image's packages."""


@dataclass(slots=True)
class _Claim:
    """One package's file at a canonical path.

    `layer` is _PARENT for a package of the parent image.
    """

    layer: int
    package: PackageHeader
    index: int
    file: FileRecord


@dataclass(slots=True)
class _Composing:
    """The state of one run of `compose`: claims and problems found so far."""

    accounts: AccountTable
    options: ComposeOptions
    problems: list[Problem] = field(default_factory=list)
    states: dict[str, list[int]] = field(default_factory=dict)
    claims: dict[str, list[_Claim]] = field(default_factory=dict)
    unknown: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    uids: dict[str, int] = field(default_factory=dict)
    gids: dict[str, int] = field(default_factory=dict)

    def refuse(self, code: str, message: str, place: str, hint: str | None = None) -> None:
        self.problems.append(Problem(code, message, place, hint))


def compose(
    layers: Sequence[tuple[str, Sequence[PackageHeader]]],
    accounts: AccountTable,
    options: ComposeOptions | None = None,
) -> Composition:
    """Compose the packages of `layers` (lowest first) into entries of each layer.

    The result does not depend on the order of the packages within a layer. Raises BuildError with every
    problem: `file-conflict`, `unsafe-path`, `owner-unknown`, `device-node`, `capability-unknown`,
    `too-many-files`.
    """
    options = options or ComposeOptions()
    work = _Composing(accounts, options)
    work.uids = {user.name: user.uid for user in accounts.users}
    work.gids = {group.name: group.gid for group in accounts.groups}
    ordered = [(name, sorted(packages, key=lambda package: package.nevra)) for name, packages in layers]
    _claim_all(ordered, work)
    winners = {path: _choose_claim(path, claims, work) for path, claims in sorted(work.claims.items())}
    composed, tree = _compose_layers(ordered, winners, work)
    _refuse_beneath_files(tree, work)
    for (kind, name), packages in sorted(work.unknown.items()):
        work.refuse(
            "owner-unknown",
            f"files of {', '.join(sorted(packages))} belong to {kind} '{name}', which has no numeric ID",
            name,
            "add it to `accounts` in the recipe",
        )
    if work.problems:
        raise BuildError.of(work.problems)
    return Composition(
        layers=tuple(composed),
        tree=Tree.of(tree),
        states=MappingProxyType({nevra: tuple(states) for nevra, states in work.states.items()}),
        build_time=max((layer.build_time for layer in composed), default=0),
    )


# --- claims of packages on paths -------------------------------------------------------------------------


def _claim_all(layers: Sequence[tuple[str, Sequence[PackageHeader]]], work: _Composing) -> None:
    options = work.options
    count = sum(len(package.files) for _, packages in layers for package in packages)
    if count > TREE_ENTRIES_LIMIT:
        raise BuildError("too-many-files", f"the packages contain {count} files, more than {TREE_ENTRIES_LIMIT}")
    canonical = _canonical(layers, work)
    _claim_parent(canonical, work)
    for number, (name, packages) in enumerate(layers):
        for package in packages:
            out = excluded_files(
                package.files,
                docs=options.docs.get(name, True),
                man=options.man.get(name, True),
                languages=options.languages,
            )
            states = [STATE_NOT_INSTALLED if index in out else STATE_NORMAL for index in range(len(package.files))]
            work.states[str(package.nevra)] = states
            for index, file in enumerate(package.files):
                try:
                    path = canonical.path(split_path(file.path))
                    if path != file.path[1:]:
                        split_path(f"/{path}")  # A symlink can lead to any name, such as that of a whiteout.
                except BuildError as error:
                    work.refuse(error.code, str(error.problems[0].message), str(package.nevra))
                    continue
                if states[index] == STATE_NORMAL:
                    work.claims.setdefault(path, []).append(_Claim(number, package, index, file))


def _claim_parent(canonical: CanonicalPaths, work: _Composing) -> None:
    """Record the claims of the parent image's packages.

    A file that is no longer in the parent's tree is not claimed: a package that has it emits it.
    """
    for one in work.options.installed:
        work.states[str(one.header.nevra)] = list(one.states)
        for index, file in enumerate(one.header.files):
            if one.states[index] == STATE_NORMAL:
                path = canonical.path(split_path(file.path))
                if work.options.below.get(path) is not None:
                    work.claims.setdefault(path, []).append(_Claim(_PARENT, one.header, index, file))


def _canonical(layers: Sequence[tuple[str, Sequence[PackageHeader]]], work: _Composing) -> CanonicalPaths:
    """Make the resolver for all symlinks that will be in the image."""
    links = {f"/{entry.path}": entry.link for entry in work.options.below if entry.kind is EntryKind.SYMLINK}
    for _, packages in layers:
        for package in packages:
            for file in package.files:
                if stat.S_ISLNK(file.mode) and not file.flags & FileFlag.GHOST:
                    try:
                        split_path(file.path)
                    except BuildError:
                        continue  # Reported with all other paths.
                    links[file.path] = file.link
    return CanonicalPaths.of(links.items())


# --- the claim that is emitted, and conflicts ------------------------------------------------------------


def _choose_claim(path: str, claims: list[_Claim], work: _Composing) -> _Claim | None:
    """Return the claim that is emitted at `path`, None if only ghosts claim it."""
    claims.sort(key=lambda claim: (claim.layer, claim.package.nevra, claim.index))
    real = [claim for claim in claims if not claim.file.flags & FileFlag.GHOST]
    if not real:
        return None
    colors = {claim.file.color for claim in real}
    if _PREFERRED_COLOR in colors and len(colors) > 1 and 0 not in colors:
        for claim in real:
            if claim.file.color != _PREFERRED_COLOR:
                work.states[str(claim.package.nevra)][claim.index] = STATE_WRONG_COLOR
        real = [claim for claim in real if claim.file.color == _PREFERRED_COLOR]
    first = real[0]
    for other in real[1:]:
        if why := _difference(first.file, other.file):
            _conflict(path, first, other, why, work)
    return first


def _difference(a: FileRecord, b: FileRecord) -> str | None:
    """Return the reason for which two files cannot share a path, None if they can."""
    if a.mode != b.mode:
        return f"mode {stat.filemode(a.mode)} and {stat.filemode(b.mode)}"
    if (a.user, a.group) != (b.user, b.group):
        return f"owner {a.user}:{a.group} and {b.user}:{b.group}"
    if stat.S_ISLNK(a.mode) and a.link != b.link:
        return f"target {a.link} and {b.link}"
    if stat.S_ISREG(a.mode) and (a.size != b.size or a.digest != b.digest or (a.digest is None and a.size)):
        return "different content"
    if (stat.S_ISCHR(a.mode) or stat.S_ISBLK(a.mode)) and a.rdev != b.rdev:
        return "different devices"
    return None


def _conflict(path: str, first: _Claim, other: _Claim, why: str, work: _Composing) -> None:
    below = first.layer == _PARENT
    work.refuse(
        "file-conflict",
        f"/{path} is in {first.package.nevra}{' of the parent image' if below else ''} and in {other.package.nevra}"
        f" with {why}",
        f"/{path}",
        "rebuild the parent with a matching package version, or leave the other package out"
        if below
        else "leave one of the packages out, or exclude it in the recipe",
    )


# --- the layers ------------------------------------------------------------------------------------------


def _compose_layers(
    layers: Sequence[tuple[str, Sequence[PackageHeader]]], winners: dict[str, _Claim | None], work: _Composing
) -> tuple[list[ComposedLayer], dict[str, Entry]]:
    tree = dict(work.options.below.entries)
    of_layer: dict[int, list[tuple[str, _Claim]]] = {}
    for path, claim in winners.items():
        if claim is not None:
            of_layer.setdefault(claim.layer, []).append((path, claim))
    composed = []
    for number, (name, packages) in enumerate(layers):
        build_time = max((package.build_time for package in packages), default=0)
        emitted: dict[str, list[tuple[int, Entry]]] = {}
        directories: dict[str, Entry] = {}
        for path, claim in of_layer.get(number, ()):
            entry = _entry(path, claim, work)
            if _is_in_parent(entry, path, work):
                tree[path] = replace(tree[path], owner=tree[path].owner or entry.owner)
                continue
            if entry.kind is EntryKind.DIRECTORY:
                directories[path] = replace(entry, mtime=build_time)
            else:
                emitted.setdefault(entry.owner, []).append((claim.index, entry))
        parts = tuple(
            Part(package.nevra, package.checksum, _with_hard_links(package, emitted[str(package.nevra)]))
            for package in packages
            if str(package.nevra) in emitted
        )
        for part in parts:
            tree.update((entry.path, entry) for _, entry in part.entries)
        tree.update(directories)
        inside = [*directories, *(entry.path for part in parts for _, entry in part.entries)]
        for path in _parents(inside):
            known = tree.get(path)
            if known is None or known.kind is not EntryKind.DIRECTORY:
                if path and known is None:
                    known = Entry(path, EntryKind.DIRECTORY, mode=0o755)
                else:
                    continue  # The root needs no entry; a file in the way is reported later.
            directories[path] = tree[path] = replace(known, mtime=build_time)
        composed.append(
            ComposedLayer(
                name=name,
                directories=tuple(directories[path] for path in sorted(directories)),
                parts=parts,
                contents=tuple(str(package.nevra) for package in packages),
                build_time=build_time,
            )
        )
    return composed, tree


def _entry(path: str, claim: _Claim, work: _Composing) -> Entry:
    file, nevra = claim.file, str(claim.package.nevra)
    kind = kind_of(file.mode)
    if kind is None or kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
        work.refuse(
            "device-node",
            f"/{path} is a device node or a socket; images cannot contain those",
            nevra,
            "leave the package out; the container runtime creates devices",
        )
        kind = EntryKind.FIFO
    xattrs: tuple[tuple[str, bytes], ...] = ()
    if file.capabilities and kind is EntryKind.FILE:
        try:
            xattrs = ((CAPABILITY_XATTR, capability_attribute(file.capabilities)),)
        except BuildError as error:
            work.refuse(error.code, f"/{path}: {error.problems[0].message}", nevra)
    return Entry(
        path=path,
        kind=kind,
        mode=0o777 if kind is EntryKind.SYMLINK else file.mode & _PERMISSIONS,
        uid=_number(work.uids, "user", file.user, nevra, work),
        gid=_number(work.gids, "group", file.group, nevra, work),
        mtime=file.mtime,
        size=file.size if kind is EntryKind.FILE else 0,
        link=file.link if kind is EntryKind.SYMLINK else "",
        xattrs=xattrs,
        content=file.digest if kind is EntryKind.FILE else None,
        owner=nevra,
    )


def _number(numbers: dict[str, int], kind: str, name: str, nevra: str, work: _Composing) -> int:
    number = numbers.get(name)
    if number is None:
        work.unknown.setdefault((kind, name), set()).add(nevra)
        return 0
    return number


def _with_hard_links(package: PackageHeader, entries: list[tuple[int, Entry]]) -> tuple[tuple[int, Entry], ...]:
    """Sort entries by path, and make all but the first of each set of hard links name the first."""
    first: dict[int, Entry] = {}
    linked = []
    for index, entry in sorted(entries, key=lambda item: item[1].path):
        file = package.files[index]
        if entry.kind is EntryKind.FILE and file.nlink > 1:
            known = first.setdefault(file.inode, entry)
            if known is not entry:
                linked.append((index, replace(entry, kind=EntryKind.HARDLINK, link=known.path)))
                continue
        linked.append((index, entry))
    return tuple(linked)


def _is_in_parent(entry: Entry, path: str, work: _Composing) -> bool:
    """Return whether the same entry is in the parent image already, so that it is not emitted.

    A different entry of a package there is a conflict, and so is a directory in place of another kind or the reverse.
    """
    below = work.options.below
    there = below.get(path)
    if there is None:
        return False
    if there.kind is EntryKind.HARDLINK and (named := below.get(there.link)):
        there = replace(named, path=entry.path, owner=there.owner)
    same = (
        (entry.kind, entry.mode, entry.uid, entry.gid) == (there.kind, there.mode, there.uid, there.gid)
        and entry.link == there.link
        and (entry.kind is not EntryKind.FILE or entry.content == there.content)
    )
    settled = any(claim.layer == _PARENT for claim in work.claims[path])
    turned = (entry.kind is EntryKind.DIRECTORY) != (there.kind is EntryKind.DIRECTORY)
    if not same and (turned or (there.owner and not settled)):
        work.refuse(
            "file-conflict",
            f"/{entry.path} differs: a {entry.kind.value} in {entry.owner}, a {there.kind.value} in "
            f"{f'{there.owner} of ' if there.owner else ''}the parent image",
            f"/{entry.path}",
            "rebuild the parent with a matching package version",
        )
    return same


def _parents(paths: Iterable[str]) -> list[str]:
    """List all parent directories of `paths`, sorted, with the root as ``""``."""
    found: set[str] = set()
    for path in paths:
        above = path
        while above:
            above = above.rpartition("/")[0]
            if above in found:
                break
            found.add(above)
    return sorted(found)


def _refuse_beneath_files(tree: dict[str, Entry], work: _Composing) -> None:
    for path in _parents(tree):
        entry = tree.get(path)
        if entry is not None and entry.kind is not EntryKind.DIRECTORY:
            inside = next(other for other in sorted(tree) if other.startswith(f"{path}/"))
            work.refuse(
                "file-conflict",
                f"/{path} is a {entry.kind.value} in {entry.owner or 'the parent image'},"
                f" and a directory for /{inside} in {tree[inside].owner or 'the parent image'}",
                f"/{path}",
                "leave one of the packages out, or exclude it in the recipe",
            )
