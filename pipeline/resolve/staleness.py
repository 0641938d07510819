"""Compare a lock with its recipe's inputs, decide whether to use it, and describe changes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from pathlib import Path

from pipeline.digest import Digest, canonical_json
from pipeline.errors import ResolutionError
from pipeline.model.lock import LockedParent, LockMode, LockSection
from pipeline.model.package import Nevra
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.recipe import Recipe
from pipeline.packages import compare_evr
from pipeline.recipes import included_digest
from pipeline.repos import RepositoryKey
from pipeline.resolve.auto_layers import image_layers
from pipeline.resolve.library_versions import library_versions


class LockState(StrEnum):
    """The state of a lock in relation to its recipe."""

    ABSENT = "absent"
    FRESH = "fresh"
    STALE = "stale"


class LockAction(Enum):
    """The action to take on a lock."""

    USE = "use"
    RESOLVE = "resolve"


_PARENT = "parent"

_NAMES = {
    _PARENT: "the parent image",
    "requests": "the requested packages",
    "includes": "an included recipe",
    "repositories": "the definition of the repositories",
    "keys": "the keys of the repositories",
    "flags": "excludes, pins, modules or other settings of the recipe",
}


def resolution_inputs(
    recipe: Recipe, platform: Platform, arch: str, keys: Sequence[RepositoryKey], *, parent: Digest | None = None
) -> tuple[tuple[str, Digest], ...]:
    """Return the digests of all that a resolution depends on, as (name, digest), sorted.

    The repositories' content is not among them.

    Definitions are taken as they are written, before variables are replaced, so that another home directory or
    mirror makes no difference. `parent` is the config's digest of the image that the recipe is built from. What
    the recipe says about files, images and tests is not part of it.
    """
    return tuple(
        sorted(
            {
                "requests": _digest([_layer_requests(recipe), arch]),
                "includes": _digest(_included(recipe)),
                "repositories": _digest(
                    [platform.name, platform.variables, [_definition(one) for one in platform.repositories]]
                ),
                "keys": _digest(sorted([k.repository, k.fingerprint, str(Digest.of(k.armored))] for k in keys)),
                "flags": _digest(
                    {
                        "weak": recipe.weak_dependencies,
                        "excludes": sorted(recipe.excludes),
                        "pins": sorted(recipe.pins),
                        "assume_installed": sorted(recipe.assume_installed),
                        "modules": sorted(recipe.modules),
                    }
                ),
                **({_PARENT: parent} if parent else {}),
            }.items()
        )
    )


def _digest(value: object) -> Digest:
    return Digest.of(canonical_json(value))


def _layer_requests(recipe: Recipe) -> list[object]:
    """Return the layers' requests in order of layers, sorted within each."""
    return [
        [
            layer.name,
            sorted({request.text for request in layer.requests}),
            sorted([item.path.name, str(item.sha256)] for item in layer.local),
            *([] if layer.at_most is None else [layer.at_most]),
        ]
        for layer in recipe.layers
    ]


def _included(recipe: Recipe) -> list[list[str]]:
    """Return path (relative to the recipe) and digest of every file that the recipe includes.

    Entries of `platforms` that are for other platforms are left out.
    """
    own = recipe.path.resolve()
    entries = dict(recipe.platform_entries)
    found = []
    for path in recipe.sources:
        if path.resolve() == own:
            continue
        content = included_digest(path, recipe.path.parent, entries.get(path))
        found.append([os.path.relpath(path.resolve(), own.parent), str(content)])
    return sorted(found)


def _definition(repository: PackageRepository) -> list[object]:
    return [
        repository.id,
        repository.baseurls,
        repository.metalink,
        repository.mirrorlist,
        repository.keys,
        repository.priority,
        repository.cost,
        repository.signed_metadata,
        sorted(repository.exclude),
        # Only where they are given, so that locks from before they were there stay fresh.
        *([{"include": sorted(repository.include)}] if repository.include else []),
        *(["module_hotfixes"] if repository.module_hotfixes else []),
        *([{"accept": sorted(repository.accept)}] if repository.accept else []),
    ]


def stale_reasons(
    section: LockSection, now: Sequence[tuple[str, Digest]], recipe: Recipe | None = None
) -> tuple[str, ...]:
    """Return the reasons why the section is stale, as sentences; empty if it is fresh.

    `now` are the present inputs. With the `recipe`, the packages' layers are compared with its layers.
    """
    old, new = dict(section.inputs), dict(now)
    reasons = ["it was changed after it was written, by hand or by a merge"] if section.written_as is not None else []
    reasons += (
        f"{_NAMES.get(name, name)} changed" + (_digests(old, new) if name == _PARENT else "")
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )
    if not reasons and recipe is not None:
        known = {name for name, _ in image_layers(recipe, section.resolution)}
        others = sorted({one.layer for one in section.resolution.chosen} - known)
        reasons = [f"it has packages in a layer '{layer}', which the recipe does not have" for layer in others]
    return tuple(reasons)


def _digests(old: Mapping[str, Digest], new: Mapping[str, Digest]) -> str:
    """Return both digests of a changed parent image's config, as text."""
    return f" (config {old.get(_PARENT, 'none')} → {new.get(_PARENT, 'none')})"


def other_versions(section: LockSection) -> tuple[str, ...]:
    """Return sentences on the libraries whose version differs from that in the section.

    They do not make it stale, but the same bytes are only guaranteed with the same versions.
    """
    now = dict(library_versions())
    return tuple(
        f"{name} was {version} when the lock was written, and is {now.get(name, 'not installed')} now"
        for name, version in section.versions
        if now.get(name) != version
    )


def decide_action(section: LockSection | None, why: Sequence[str], mode: LockMode, path: Path) -> LockAction:
    """Decide if the lock at `path` is used or resolved again.

    `section` is its section (None: none), `why` is from `stale_reasons`. Raises ResolutionError `lock-missing` or
    `lock-stale` where `--locked` forbids to resolve.
    """
    state = LockState.ABSENT if section is None else LockState.STALE if why else LockState.FRESH
    match mode, state:
        case LockMode.UPGRADE, _:
            return LockAction.RESOLVE
        case _, LockState.FRESH:
            return LockAction.USE
        case LockMode.DEFAULT, _:
            return LockAction.RESOLVE
        case LockMode.LOCKED, LockState.ABSENT:
            raise ResolutionError(
                "lock-missing",
                f"{path.name} has no section for this platform and architecture, and --locked was given",
                place=str(path),
                hint="run `relbuild lock` and commit the result",
            )
        case LockMode.LOCKED, LockState.STALE:
            raise ResolutionError(
                "lock-stale",
                f"{path.name} is stale: {'; '.join(why)}",
                place=str(path),
                hint="run `relbuild lock` and commit the result",
            )
    raise AssertionError(f"{mode} and {state} are all there are")


def compare_sections(old: LockSection | None, new: LockSection) -> tuple[str, ...]:
    """Return the differences between two sections as text for people, a line for each package."""
    before = _by_name(old)
    after = _by_name(new)
    lines = _changed_parent(old.parent if old else None, new.parent)
    for key in sorted(before.keys() | after.keys()):
        name = ".".join(key) if key[1] else key[0]
        if key not in before:
            lines.append(f"+ {name} {after[key][0].evr} ({after[key][2]})")
        elif key not in after:
            lines.append(f"- {name} {before[key][0].evr}")
        else:
            lines += _changed(name, before[key], after[key])
    return tuple(lines)


def _changed_parent(old: LockedParent | None, new: LockedParent | None) -> list[str]:
    if old == new:
        return []
    told = [f"{one.recipe} {one.digest}" if one else "none" for one in (old, new)]
    return [f"~ parent {told[0]} → {told[1]}" if old else f"+ parent {told[1]}"]


_Told = tuple[Nevra, str, str]
"""NEVRA, sha256 and layer of a package."""


def _by_name(section: LockSection | None) -> dict[tuple[str, str], _Told]:
    """Return packages by name, and by name and EVR where there are several versions of one."""
    chosen = section.resolution.chosen if section else ()
    found: dict[tuple[str, str], _Told] = {}
    for one in chosen:
        nevra = one.package.nevra
        key = (nevra.name, "" if (nevra.name, "") not in found else f"{nevra.evr}.{nevra.arch}")
        found[key] = (nevra, one.package.checksum.hex, one.layer)
    return found


def _changed(name: str, old: _Told, new: _Told) -> list[str]:
    lines = []
    if old[0] != new[0]:
        order = compare_evr(old[0].evr, new[0].evr)
        verb = {-1: "upgraded", 1: "downgraded"}.get(order, "changed")
        arch = "" if old[0].arch == new[0].arch else f" ({old[0].arch} → {new[0].arch})"
        lines.append(f"~ {name} {old[0].evr} → {new[0].evr} {verb}{arch}")
    elif old[1] != new[1]:
        lines.append(f"~ {name} {new[0].evr} has another checksum under the same version")
    if old[2] != new[2]:
        lines.append(f"~ {name} moves from layer {old[2]} to {new[2]}")
    return lines
