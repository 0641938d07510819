"""Reachability of manifests, blobs and tags in one repository.

An index reaches what it lists, an image its config and layers, and what speaks of something (signatures, attestations,
lists of referrers) is reached from what it speaks of; a referrer reaches its subject as well.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.digest import Digest
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.retention.pruning import HeldManifest, HeldRepository, HeldTag

MOVE_TAG_PREFIX = "move."
"""The beginning of the tags under which moves are written down (`pipeline.mirror.tag_history`)."""

SOURCES_TAG_PREFIX = "sources-"
"""What the tags begin with under which the sources of an image stand; twelve hex digits of its digest follow."""

PRUNING_TAG_PREFIX = "prune."
"""What the tags begin with under which it is written down what a pruning is about to delete
(`pipeline.mirror.retention.deletion`)."""

_OF_SUBJECT = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})(?P<ending>\.[a-z]+)?")


def tag_subject(tag: str) -> tuple[Digest, bool] | None:
    """Return the subject that a tag names, and whether the tag is a list of referrers.

    A list of referrers is `sha256-HEX`, and not `sha256-HEX.sig`. None for all other tags.
    """
    found = _OF_SUBJECT.fullmatch(tag)
    return (Digest(found["hex"]), found["ending"] is None) if found and is_auxiliary(tag) else None


def follows_subject(tag: str) -> bool:
    """Return whether a tag stays and goes with what it speaks of, whatever the rules say."""
    return is_auxiliary(tag) and not tag.startswith((MOVE_TAG_PREFIX, PRUNING_TAG_PREFIX))


@dataclass(slots=True)
class ReachableSet:
    """Set of what is reached from somewhere.

    Manifests with all that they refer to, lists of referrers without what they list,
    blobs, and the tags that follow a manifest."""

    manifests: set[Digest] = field(default_factory=set)
    lists: set[Digest] = field(default_factory=set)
    blobs: set[Digest] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.manifests or digest in self.lists


class RepositoryGraph:
    """A repository as a graph."""

    def __init__(self, repository: HeldRepository) -> None:
        self.manifests: Mapping[Digest, HeldManifest] = {one.digest: one for one in repository.manifests}
        self.referrers: dict[Digest, list[Digest]] = defaultdict(list)
        for manifest in repository.manifests:
            if manifest.subject is not None:
                self.referrers[manifest.subject].append(manifest.digest)
        self.followers: dict[Digest, list[HeldTag]] = defaultdict(list)
        self.lists: dict[str, HeldTag] = {}
        self.sources: dict[str, HeldTag] = {}
        for tag in repository.tags:
            subject = tag_subject(tag.name)
            if subject is not None:
                self.followers[subject[0]].append(tag)
                if subject[1]:
                    self.lists[tag.name] = tag
            elif tag.name.startswith(SOURCES_TAG_PREFIX) and is_auxiliary(tag.name):
                self.sources[tag.name] = tag

    def reach(
        self, roots: Iterable[Digest], lists: Iterable[Digest] = (), beside: ReachableSet | None = None
    ) -> ReachableSet:
        """Collect what is reached from `roots` and `lists`.

        The manifests and tags that are in `beside` are left out.
        """
        reach = ReachableSet(lists=set(lists))
        known = beside.manifests if beside else set[Digest]()
        self._follow(roots, reach, known)
        while fresh := self._sought(reach):
            reach.tags |= fresh
            self._follow([self.sources[name].digest for name in fresh], reach, known)
        if beside:
            reach.tags -= beside.tags
            reach.lists -= beside.lists
        return reach

    def _follow(self, roots: Iterable[Digest], reach: ReachableSet, known: Container[Digest]) -> None:
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest in known or digest in reach.manifests:
                continue
            manifest = self.manifests.get(digest)
            reach.blobs.add(digest)  # where something is not looked at as a manifest, it is a blob as well
            if manifest is None:
                continue
            reach.manifests.add(digest)
            waiting += (one.digest for one in (*manifest.children, *manifest.blobs))
            waiting += self.referrers[digest]
            if manifest.subject is not None and manifest.subject in self.manifests:
                waiting.append(manifest.subject)
            for tag in self.followers[digest]:
                reach.tags.add(tag.name)
                if tag.name in self.lists:
                    # It stays without what it lists: a referrer says itself what it speaks of.
                    reach.lists.add(tag.digest)
                else:
                    waiting.append(tag.digest)

    def _sought(self, reach: ReachableSet) -> set[str]:
        """The tags of sources that something has which is reached, and that are not reached yet."""
        left = {name: tag for name, tag in self.sources.items() if name not in reach.tags}
        if not left:
            return set()
        shorts = {digest.short for digest in reach.manifests}
        return {
            name
            for name, tag in left.items()
            if tag.digest in reach.manifests or name.removeprefix(SOURCES_TAG_PREFIX) in shorts
        }
