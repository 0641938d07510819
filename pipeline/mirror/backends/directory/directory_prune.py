"""Pruning of a directory: what goes is moved into quarantine and can be restored.

`retention.pruning_plan` decides what goes.

Publishers are kept out, what goes is decided anew, and then: lists of referrers are written without what goes, tags are
removed, manifests, and blobs last. So whatever can be found by a tag is whole at every moment, and a pruning that was
killed leaves what the next one takes away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.digest import Digest
from pipeline.errors import UsageError
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
from pipeline.mirror.retention.relisting import with_lists
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.model.rules import MirrorRules

if TYPE_CHECKING:
    from pipeline.mirror.backends.directory.directory_mirror import DirectoryMirror

PRUNING_LOCK_TIMEOUT = 60.0
"""Seconds that publishers get to finish: a publication that uploads much holds its lock longer, and then the keeper is
told to come again."""

_SECOND = 1.0
"""Stamps tell whole seconds: prunings are given different ones, so that their order can be read from them."""


def prune_directory(
    mirror: DirectoryMirror,
    rules: MirrorRules,
    now: int,
    *,
    pulls: Pulls | None = None,
    dry_run: bool = False,
    patience: float = PRUNING_LOCK_TIMEOUT,
) -> PruningResult:
    """Move what the rules do not keep into quarantine, and delete what is there for too long.

    Too long is longer than `rules.quarantine`. `now` is seconds since the epoch, `pulls` when tags were last pulled,
    where that is known. With `dry_run` nothing is changed, and publishers are not kept out: the result is what would
    go.

    Raises EnvironmentLacking `mirror-busy` if others publish for `patience` seconds, `mirror-unreachable`;
    VerificationError if a manifest is damaged: what it needs is not known then.
    """
    if dry_run:
        plan, _ = with_lists(plan_pruning(with_pulls(mirror.inventory(), pulls), rules, now), mirror)
        return PruningResult(mirror.url, True, plan, plan.size)
    with mirror.pruning(patience) as pruning, mirror_errors(mirror.url):
        _list_again(mirror.place)
        pruning.empty_quarantine(now - rules.quarantine)
        plan, lists = with_lists(plan_pruning(with_pulls(pruning.inventory(), pulls), rules, now), mirror)
        if plan.empty:
            return PruningResult(mirror.url, False, plan, 0)
        for relisting, index in lists:
            paths = mirror.place.paths(relisting.repository)
            with paths.locked():
                _point(paths, relisting.tag, index)
        last = max((one.at for one in pruning.quarantined()), default=0.0)
        stamp = pruning.quarantine(_leaving(plan), max(float(now), last + _SECOND))
        moved = sum(one.size for one in pruning.quarantined() if one.stamp == stamp)
    return PruningResult(mirror.url, False, plan, moved, stamp)


def undo_prunings(mirror: DirectoryMirror, stamp: str, *, patience: float = PRUNING_LOCK_TIMEOUT) -> UndoResult:
    """Bring back what one pruning removed, and those after it, the last one first.

    The mirror is then as before that pruning. A tag that exists again is left as it is, and lists of referrers keep
    what was attached meanwhile.

    Raises UsageError `quarantine-unknown`, EnvironmentLacking `mirror-busy`, `mirror-unreachable`.
    """
    with mirror.pruning(patience) as pruning, mirror_errors(mirror.url):
        _list_again(mirror.place)
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
            tidy = _Tidying(mirror.place, before, one.leaving)
            tags += restored.tags
            left += tidy.lists(restored.kept_tags)
            tidy.sweep(pruning.inventory())
            manifests += restored.manifests
            blobs += restored.blobs
    return UndoResult(
        mirror.url, tuple(one.stamp for one in reversed(kept)), tuple(tags), tuple(left), manifests, blobs
    )


def _list_again(place: MirrorPaths) -> None:
    """Write the list of tags of every repository again.

    A pruning that was killed may have removed a tag that is still in the repository's list of tags.
    """
    for name in place.names():
        paths = place.paths(name)
        with paths.locked():
            paths.list_tags()


def _point(paths: RepositoryPaths, tag: str, index: Manifest) -> None:
    paths.write(index)
    paths.move(tag, index.descriptor)


def _leaving(plan: PruningPlan) -> RemovalList:
    """Lists that were written anew are among the tags, so that undoing knows what they were."""
    tags = [(one.repository, one.tag, one.digest) for one in plan.tags]
    tags += [(one.repository, one.tag, one.present) for one in plan.relisted]
    return RemovalList(
        tuple(sorted(tags)),
        tuple((one.repository, one.digest) for one in plan.manifests),
        tuple(one.digest for one in plan.blobs),
    )


class _Tidying:
    """The rest of undoing one pruning: lists of referrers, and what was made on the way.

    Lists of referrers say again what they said, and nothing is left that was made on the way. `before`: what was there
    when it began.
    """

    def __init__(self, place: MirrorPaths, before: Inventory, leaving: RemovalList) -> None:
        self._place = place
        self._leaving = leaving
        self._tags = {(name, tag.name): tag.digest for name, tag in _tags(before)}
        self._manifests = {(name, one.digest) for name, one in _manifests(before)}

    def lists(self, kept: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Point lists of referrers at what they were, or at that with what was attached since.

        Returns the other tags among `kept`.
        """
        for name, tag, digest in self._leaving.tags:
            paths = self._place.paths(name)
            old = paths.read(digest) if _is_list(tag) else None
            if old is None:
                continue
            present = self._tags.get((name, tag))
            meanwhile = paths.read(present) if present is not None else None
            entries = {one.descriptor.digest: one for one in listed_referrers(old)}
            more = [
                one
                for one in (listed_referrers(meanwhile) if meanwhile else ())
                if one.descriptor.digest not in entries
            ]
            with paths.locked():
                _point(paths, tag, referrers_index((*entries.values(), *more)) if more else old)
        return [(name, tag) for name, tag in kept if not _is_list(tag)]

    def sweep(self, after: Inventory) -> None:
        """Remove lists that the restoring made and that were not there before."""
        meant = {(name, tag) for name, tag, _ in self._leaving.tags}
        used = set[tuple[str, Digest]]()
        for name, tag in _tags(after):
            if (name, tag.name) in self._tags or (name, tag.name) in meant or not _is_list(tag.name):
                used.add((name, tag.digest))
            else:
                paths = self._place.paths(name)
                with paths.locked():
                    paths.drop(tag.name)
        known = self._manifests | set(self._leaving.manifests)
        superseded = {(name, digest) for (name, tag), digest in self._tags.items() if _is_list(tag)}
        for name, one in _manifests(after):
            held = (name, one.digest)
            if held not in used and (held not in known or held in superseded):
                descriptor = Descriptor(one.media_type, one.digest, one.size)
                self._place.paths(name).manifest_file(descriptor).unlink(missing_ok=True)


def _tags(held: Inventory) -> Iterator[tuple[str, HeldTag]]:
    """Each tag with its repository's name."""
    return ((one.name, tag) for one in held.repositories for tag in one.tags)


def _manifests(held: Inventory) -> Iterator[tuple[str, HeldManifest]]:
    """Each manifest with its repository's name."""
    return ((one.name, manifest) for one in held.repositories for manifest in one.manifests)


def _is_list(tag: str) -> bool:
    subject = tag_subject(tag)
    return subject is not None and subject[1]
