"""Prune a directory mirror by moving manifests and blobs into quarantine; undo prunings.

`retention.pruning_plan` decides what is pruned. Publishers are excluded by a lock, the plan is made, and then referrers
indexes are rewritten without the pruned manifests, tags are removed, then manifests, and blobs last. So everything that
a tag leads to is complete at every moment, and what a killed pruning leaves over is removed by the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import UsageError, VerificationError
from pipeline.mirror.atomic_files import mirror_errors
from pipeline.mirror.backends.directory.mirror_paths import MirrorPaths, RepositoryPaths
from pipeline.mirror.references import listed_referrers, referrers_index
from pipeline.mirror.retention.access_log import Pulls, with_pulls
from pipeline.mirror.retention.pruning import (
    HeldManifest,
    HeldTag,
    Inventory,
    PruningPlan,
    PruningResult,
    UndoResult,
)
from pipeline.mirror.retention.pruning_plan import plan_pruning
from pipeline.mirror.retention.quarantine import RemovalList
from pipeline.mirror.retention.reachability import tag_subject
from pipeline.mirror.retention.referrers_rewrite import add_rebuilt_indexes
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest, Referrer
from pipeline.model.rules import MirrorRules

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror

PRUNING_LOCK_TIMEOUT = 60.0
"""Seconds that publishers get to finish. A publication that uploads much holds its lock longer: then the operator is
told to prune later."""

_SECOND = 1.0
"""Resolution of stamps: each pruning gets a later second than the one before, so that stamps show their order."""


def prune_directory(
    mirror: DirectoryMirror,
    rules: MirrorRules,
    now: int,
    *,
    pulls: Pulls | None = None,
    dry_run: bool = False,
    timeout: float = PRUNING_LOCK_TIMEOUT,
) -> PruningResult:
    """Move what the rules do not keep into quarantine, and delete old prunings from it.

    Old prunings are those of more than `rules.quarantine` seconds ago.

    `now` is seconds since the epoch; `pulls`: when tags were last pulled, where that is known. With `dry_run` nothing
    is changed and publishers are not excluded: the result is what would be pruned.

    Raises EnvironmentLacking `mirror-busy` if others publish for `timeout` seconds, `mirror-unreachable`;
    VerificationError if a manifest is damaged: what it refers to is then unknown.
    """
    if dry_run:
        plan, _ = add_rebuilt_indexes(plan_pruning(with_pulls(mirror.inventory(), pulls), rules, now), mirror)
        return PruningResult(mirror.url, True, plan, plan.size)
    with mirror.pruning(timeout) as pruning, mirror_errors(mirror.url):
        _update_tag_lists(mirror.place)
        pruning.empty_quarantine(now - rules.quarantine)
        plan, indexes = add_rebuilt_indexes(plan_pruning(with_pulls(pruning.inventory(), pulls), rules, now), mirror)
        if plan.empty:
            return PruningResult(mirror.url, False, plan, 0)
        for update, index in indexes:
            paths = mirror.place.paths(update.repository)
            with paths.locked():
                _point(paths, update.tag, index)
        last = max((one.at for one in pruning.quarantined()), default=0.0)
        stamp = pruning.quarantine(_removal_list(plan), max(float(now), last + _SECOND))
        moved = sum(one.size for one in pruning.quarantined() if one.stamp == stamp)
    return PruningResult(mirror.url, False, plan, moved, stamp)


def undo_prunings(mirror: DirectoryMirror, stamp: str, *, timeout: float = PRUNING_LOCK_TIMEOUT) -> UndoResult:
    """Restore what one pruning removed, and those after it, the last one first.

    The mirror is then as before that pruning. A tag that exists again is left as it is, and referrers indexes keep what
    was attached since.

    Raises UsageError `quarantine-unknown`, EnvironmentLacking `mirror-busy`, `mirror-unreachable`.
    """
    with mirror.pruning(timeout) as pruning, mirror_errors(mirror.url):
        _update_tag_lists(mirror.place)
        kept = [one for one in pruning.quarantined() if one.stamp >= stamp]
        if not any(one.stamp == stamp for one in kept):
            pruning.restore(stamp)  # raises
            raise UsageError("quarantine-unknown", f"no pruning with the stamp '{stamp[:60]}'", place=mirror.url)
        tags: list[tuple[str, str]] = []
        left: list[tuple[str, str]] = []
        manifests = blobs = 0
        for one in sorted(kept, key=lambda each: each.stamp, reverse=True):
            before = pruning.inventory()
            restored = pruning.restore(one.stamp)
            cleanup = _UndoCleanup(mirror.place, before, one.leaving)
            tags += restored.tags
            left += cleanup.restore_indexes(restored.kept_tags)
            cleanup.sweep(pruning.inventory())
            manifests += restored.manifests
            blobs += restored.blobs
    return UndoResult(
        mirror.url, tuple(one.stamp for one in reversed(kept)), tuple(tags), tuple(left), manifests, blobs
    )


def _update_tag_lists(place: MirrorPaths) -> None:
    """Update `_tags.json` of every repository.

    A killed pruning may have removed a tag that is still listed there.
    """
    for name in place.names():
        paths = place.paths(name)
        with paths.locked():
            paths.list_tags()


def _point(paths: RepositoryPaths, tag: str, index: Manifest) -> None:
    paths.write(index)
    paths.move(tag, index.descriptor)


def _removal_list(plan: PruningPlan) -> RemovalList:
    """Return the removals of a plan for its record.

    The tags include those of rewritten referrers indexes, so that undoing finds the former ones.
    """
    tags = [(one.repository, one.tag, one.digest) for one in plan.tags]
    tags += [(one.repository, one.tag, one.present) for one in plan.relisted]
    return RemovalList(
        tuple(sorted(tags)),
        tuple((one.repository, one.digest) for one in plan.manifests),
        tuple(one.digest for one in plan.blobs),
    )


class _UndoCleanup:
    """The end of undoing one pruning: referrers indexes are restored, intermediate ones removed.

    `before`: inventory when the undoing began.
    """

    def __init__(self, place: MirrorPaths, before: Inventory, leaving: RemovalList) -> None:
        self._place = place
        self._removal_list = leaving
        self._tags = {(name, tag.name): tag.digest for name, tag in _tags(before)}
        self._manifests = {(name, one.digest) for name, one in _manifests(before)}

    def restore_indexes(self, kept: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Point fallback tags at their former referrers indexes, plus entries attached since.

        Returns the other tags among `kept`.
        """
        for name, tag, digest in self._removal_list.tags:
            paths = self._place.paths(name)
            old = paths.read(digest) if _is_fallback(tag) else None
            if old is None:
                continue
            present = self._tags.get((name, tag))
            meanwhile = paths.read(present) if present is not None else None
            entries = {one.descriptor.digest: one for one in _listed(old)}
            more = [one for one in _listed(meanwhile) if one.descriptor.digest not in entries]
            with paths.locked():
                _point(paths, tag, referrers_index((*entries.values(), *more)) if more else old)
        return [(name, tag) for name, tag in kept if not _is_fallback(tag)]

    def sweep(self, after: Inventory) -> None:
        """Remove referrers indexes that restoring made on the way and that are not used."""
        meant = {(name, tag) for name, tag, _ in self._removal_list.tags}
        used = set[tuple[str, Digest]]()
        for name, tag in _tags(after):
            if (name, tag.name) in self._tags or (name, tag.name) in meant or not _is_fallback(tag.name):
                used.add((name, tag.digest))
            else:
                paths = self._place.paths(name)
                with paths.locked():
                    paths.drop(tag.name)
        known = self._manifests | set(self._removal_list.manifests)
        superseded = {(name, digest) for (name, tag), digest in self._tags.items() if _is_fallback(tag)}
        for name, one in _manifests(after):
            held = (name, one.digest)
            if held not in used and (held not in known or held in superseded):
                descriptor = Descriptor(one.media_type, one.digest, one.size)
                self._place.paths(name).manifest_file(descriptor).unlink(missing_ok=True)


def _listed(index: Manifest | None) -> tuple[Referrer, ...]:
    """Return the referrers that an index lists; none of a malformed one, which somebody planted."""
    with contextlib.suppress(VerificationError):
        return listed_referrers(index) if index is not None else ()
    return ()


def _tags(held: Inventory) -> Iterator[tuple[str, HeldTag]]:
    """Yield each tag with its repository's name."""
    return ((one.name, tag) for one in held.repositories for tag in one.tags)


def _manifests(held: Inventory) -> Iterator[tuple[str, HeldManifest]]:
    """Yield each manifest with its repository's name."""
    return ((one.name, manifest) for one in held.repositories for manifest in one.manifests)


def _is_fallback(tag: str) -> bool:
    subject = tag_subject(tag)
    return subject is not None and subject[1]
