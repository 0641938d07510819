"""Carrying out what was decided to go (`pipeline.mirror.retention`): on a directory, where it can be brought back.

Publishers are kept out, what goes is decided anew, and then: lists of referrers are written without what goes, tags are
removed, manifests, and blobs last. So whatever can be found by a tag is whole at every moment, and a pruning that was
killed leaves what the next one takes away.
"""

from __future__ import annotations

import json
from dataclasses import replace

from pipeline.digest import Digest
from pipeline.errors import UsageError
from pipeline.mirror import quarantine
from pipeline.mirror.directory import DirectoryMirror
from pipeline.mirror.holdings import inventory_of_files
from pipeline.mirror.inventory import Inventory
from pipeline.mirror.place import Place, Shelf
from pipeline.mirror.pulls import Pulls, with_pulls
from pipeline.mirror.reach import tag_subject
from pipeline.mirror.references import listed_referrers, referrers_index
from pipeline.mirror.repository import Mirror
from pipeline.mirror.retention import plan_pruning
from pipeline.mirror.whole import reaching
from pipeline.model.artifact import Manifest
from pipeline.model.retention import Plan, Pruned, Relisting, Undone
from pipeline.model.rules import MirrorRules

PATIENCE = 60.0
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
    patience: float = PATIENCE,
) -> Pruned:
    """Move what the rules do not keep into quarantine, and empty that of what is there for longer than
    `rules.quarantine`. `now` is seconds since the epoch, `pulls` when tags were
    last pulled, where that is known. With `dry_run` nothing is changed, and publishers are not kept
    out: the result is what would go.

    Raises EnvironmentLacking `mirror-busy` if others publish for `patience` seconds, `mirror-unreachable`;
    VerificationError if a manifest is damaged: what it needs is not known then.
    """
    if dry_run:
        plan, _ = with_lists(
            plan_pruning(with_pulls(inventory_of_files(mirror.inventory()), pulls), rules, now), mirror
        )
        return Pruned(mirror.url, True, plan, plan.size)
    with mirror.pruning(patience) as pruning, reaching(mirror.url):
        _list_again(mirror.place)
        pruning.empty_quarantine(now - rules.quarantine)
        plan, lists = with_lists(
            plan_pruning(with_pulls(inventory_of_files(pruning.inventory()), pulls), rules, now), mirror
        )
        if plan.empty:
            return Pruned(mirror.url, False, plan, 0)
        for relisting, index in lists:
            shelf = mirror.place.shelf(relisting.repository)
            with shelf.locked():
                _point(shelf, relisting.tag, index)
        last = max((one.at for one in pruning.quarantined()), default=0.0)
        stamp = pruning.quarantine(_leaving(plan), max(float(now), last + _SECOND))
        moved = sum(one.size for one in pruning.quarantined() if one.stamp == stamp)
    return Pruned(mirror.url, False, plan, moved, stamp)


def undo(mirror: DirectoryMirror, stamp: str, *, patience: float = PATIENCE) -> Undone:
    """Bring back what went with one pruning and with those after it, the last one first: it is then as before that
    one. A tag that exists again is left as it is, and lists of referrers keep what was attached meanwhile.

    Raises UsageError `quarantine-unknown`, EnvironmentLacking `mirror-busy`, `mirror-unreachable`.
    """
    with mirror.pruning(patience) as pruning, reaching(mirror.url):
        _list_again(mirror.place)
        kept = [one for one in pruning.quarantined() if one.stamp >= stamp]
        if not any(one.stamp == stamp for one in kept):
            pruning.restore(stamp)  # raises
            raise UsageError("quarantine-unknown", f"nothing was pruned as '{stamp[:60]}'", place=mirror.url)
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
    return Undone(mirror.url, tuple(one.stamp for one in reversed(kept)), tuple(tags), tuple(left), manifests, blobs)


def with_lists(plan: Plan, mirror: Mirror) -> tuple[Plan, tuple[tuple[Relisting, Manifest], ...]]:
    """The lists of referrers as they will be, and the plan with that in mind: such a list may have been there before,
    and lie among what goes. Raises as the mirror does."""
    lists = []
    for relisting in plan.relisted:
        index = mirror.repository(relisting.repository).manifest(relisting.present)
        if index is not None:
            lists.append((relisting, relisted(index, relisting.without)))
    needed = {(relisting.repository, index.digest) for relisting, index in lists}
    left = tuple(one for one in plan.manifests if (one.repository, one.digest) not in needed)
    return replace(plan, manifests=left), tuple(lists)


def relisted(index: Manifest, without: tuple[Digest, ...]) -> Manifest:
    """A list of referrers without some of them, and all else that is in it as it is."""
    listed_referrers(index)  # raises VerificationError if it is none
    document = json.loads(index.data)
    gone = {str(digest) for digest in without}
    document["manifests"] = [entry for entry in document.get("manifests") or () if entry["digest"] not in gone]
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Manifest(index.media_type, data.encode())


def _list_again(place: Place) -> None:
    """A pruning that was killed may have removed a tag that is still in the repository's list of tags."""
    for name in place.names():
        shelf = place.shelf(name)
        with shelf.locked():
            shelf.list_tags()


def _point(shelf: Shelf, tag: str, index: Manifest) -> None:
    shelf.write(index)
    shelf.move(tag, index.descriptor)


def _leaving(plan: Plan) -> quarantine.Leaving:
    """Lists that were written anew are among the tags, so that undoing knows what they were."""
    tags = [(one.repository, one.tag, one.digest) for one in plan.tags]
    tags += [(one.repository, one.tag, one.present) for one in plan.relisted]
    return quarantine.Leaving(
        tuple(sorted(tags)),
        tuple((one.repository, one.digest) for one in plan.manifests),
        tuple(one.digest for one in plan.blobs),
    )


class _Tidying:
    """After one pruning was brought back: lists of referrers say again what they said, and nothing is left that was
    made on the way. `before`: what was there when it began."""

    def __init__(self, place: Place, before: Inventory, leaving: quarantine.Leaving) -> None:
        self._place = place
        self._leaving = leaving
        self._tags = {(tag.repository, tag.tag): tag.digest for tag in before.tags}
        self._manifests = {(one.repository, one.manifest.digest) for one in before.manifests}

    def lists(self, kept: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Point lists of referrers at what they were, or at that with what was attached since. Returns the other tags
        among `kept`."""
        for name, tag, digest in self._leaving.tags:
            shelf = self._place.shelf(name)
            old = shelf.read(digest) if _is_list(tag) else None
            if old is None:
                continue
            present = self._tags.get((name, tag))
            meanwhile = shelf.read(present) if present is not None else None
            entries = {one.descriptor.digest: one for one in listed_referrers(old)}
            more = [
                one
                for one in (listed_referrers(meanwhile) if meanwhile else ())
                if one.descriptor.digest not in entries
            ]
            with shelf.locked():
                _point(shelf, tag, referrers_index((*entries.values(), *more)) if more else old)
        return [(name, tag) for name, tag in kept if not _is_list(tag)]

    def sweep(self, after: Inventory) -> None:
        """Remove lists that the restoring made and that were not there before."""
        meant = {(name, tag) for name, tag, _ in self._leaving.tags}
        used = set[tuple[str, Digest]]()
        for tag in after.tags:
            place = (tag.repository, tag.tag)
            if place in self._tags or place in meant or not _is_list(tag.tag):
                used.add((tag.repository, tag.digest))
            else:
                shelf = self._place.shelf(tag.repository)
                with shelf.locked():
                    shelf.drop(tag.tag)
        known = self._manifests | set(self._leaving.manifests)
        for one in after.manifests:
            held = (one.repository, one.manifest.digest)
            superseded = held in {(name, digest) for (name, tag), digest in self._tags.items() if _is_list(tag)}
            if held not in used and (held not in known or superseded):
                self._place.shelf(one.repository).manifest_file(one.manifest.descriptor).unlink(missing_ok=True)


def _is_list(tag: str) -> bool:
    subject = tag_subject(tag)
    return subject is not None and subject[1]
