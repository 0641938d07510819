"""Compute which manifests, blobs and auxiliary tags of a repository are reachable.

From an index its entries are reachable, from an image its config and layers, from a subject its referrers, signatures
and referrers index, and from a referrer its subject. What speaks of a manifest that is missing is reachable as if it
were there: it may be restored.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import field

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.protocol import is_auxiliary
from pipeline.mirror.retention.pruning import HeldManifest, HeldRepository, HeldTag

MOVE_TAG_PREFIX = "move."
"""Prefix of the tags of old records of moves (`pipeline.mirror.tag_history`)."""

SOURCES_TAG_PREFIX = "sources-"
"""Prefix of the tags of an image's source packages; twelve hex digits of the image's digest follow."""

PRUNING_TAG_PREFIX = "prune."
"""Prefix of the tags of a pruning's records (`pipeline.mirror.retention.deletion`)."""

_OF_SUBJECT = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})(?P<ending>\.[a-z]+)?")


def tag_subject(tag: str) -> tuple[Digest, bool] | None:
    """Return the subject in a tag's name, and whether it is a fallback tag (`sha256-HEX`).

    Not so `sha256-HEX.sig`. None for all other tags.
    """
    found = _OF_SUBJECT.fullmatch(tag)
    return (Digest(found["hex"]), found["ending"] is None) if found and is_auxiliary(tag) else None


def follows_subject(tag: str) -> bool:
    """Return whether a tag is kept or pruned with its subject, whatever the rules say."""
    return is_auxiliary(tag) and not tag.startswith((MOVE_TAG_PREFIX, PRUNING_TAG_PREFIX))


@dataclass(slots=True)
class ReachableSet:
    """Reachable content.

    `manifests`: with everything to which they refer; `lists`: referrers indexes, without their entries; `blobs`: with
    the manifests, and with what is missing; `tags`: those that follow a reachable manifest.
    """

    manifests: set[Digest] = field(default_factory=set)
    lists: set[Digest] = field(default_factory=set)
    blobs: set[Digest] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.manifests or digest in self.lists


class RepositoryGraph:
    """A repository's references as a graph.

    `referrers`: subject → manifests; `followers`: subject → tags that name it; `lists`: fallback tags; `sources`: tags
    of source packages.
    """

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
        """Return what is reachable from the manifests `roots` and the referrers indexes `lists`.

        Without the manifests and tags that are in `beside`.
        """
        reach = ReachableSet(lists=set(lists))
        known = beside.manifests if beside else set[Digest]()
        self._follow(roots, reach, known)
        while fresh := self._unreached_sources(reach):
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
            if digest in known or digest in reach.blobs:
                continue
            manifest = self.manifests.get(digest)
            reach.blobs.add(digest)  # A blob, or a manifest.
            if manifest is not None:
                reach.manifests.add(digest)
                waiting += (one.digest for one in (*manifest.children, *manifest.blobs))
                if manifest.subject is not None and manifest.subject in self.manifests:
                    waiting.append(manifest.subject)
            waiting += self.referrers.get(digest, ())
            for tag in self.followers.get(digest, ()):
                reach.tags.add(tag.name)
                if tag.name in self.lists:
                    # Its entries are not followed: referrers are found by their own subject.
                    reach.lists.add(tag.digest)
                else:
                    waiting.append(tag.digest)

    def _unreached_sources(self, reach: ReachableSet) -> set[str]:
        """Return the tags of source packages of reachable images that are not in `reach` yet."""
        left = {name: tag for name, tag in self.sources.items() if name not in reach.tags}
        if not left:
            return set()
        shorts = {digest.short for digest in reach.blobs}
        return {
            name
            for name, tag in left.items()
            if tag.digest in reach.manifests or name.removeprefix(SOURCES_TAG_PREFIX) in shorts
        }
