"""Compute a pruning plan from a mirror's inventory and the retention rules, without I/O.

The rules select tags. Manifests and blobs that cannot be reached from retained tags (`reachability`) are pruned, unless
they are so young that a publication in progress may have put them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import field
from fnmatch import fnmatchcase

from pipeline.digest import Digest
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.retention.pruning import (
    HeldBlob,
    HeldManifest,
    HeldRepository,
    HeldTag,
    Inventory,
    PrunedKind,
    PruningEntry,
    PruningPlan,
    ReferrersUpdate,
)
from pipeline.mirror.retention.reachability import (
    MOVE_TAG_PREFIX,
    PRUNING_TAG_PREFIX,
    RepositoryGraph,
    follows_subject,
)
from pipeline.mirror.tag_statements import ANCHOR_TYPE
from pipeline.model.rules import MirrorRules, RetentionRule


def plan_pruning(inventory: Inventory, rules: MirrorRules, now: int, *, idle: bool = False) -> PruningPlan:
    """Plan what to prune at `now` (seconds since the epoch) by the operator's rules.

    `idle`: the operator assures that nobody publishes, so that content of unknown age counts as old. Otherwise such
    content is spared, unless it must have arrived long ago: a tag points to it, or its subject is missing.
    """
    decisions = [_RepositoryDecision(repository, rules, now, idle) for repository in inventory.repositories]
    kept = frozenset[Digest]().union(*(one.kept.blobs for one in decisions))
    needed = frozenset[Digest]().union(*(one.spared.blobs for one in decisions))
    gone: list[PruningEntry] = []
    spared: list[PruningEntry] = []
    for blob in inventory.blobs:
        if blob.digest in kept:
            continue
        if blob.digest in needed:
            spared.append(_blob(blob, _NEEDED))
        elif _young(blob.since, now, rules.grace):
            spared.append(_blob(blob, _why_young(rules.grace)))
        else:
            gone.append(_blob(blob, "unused by anything that is kept"))
    here = {blob.digest for blob in inventory.blobs}
    return PruningPlan(
        tags=tuple(goes for one in decisions for goes in one.pruned_tags()),
        manifests=tuple(goes for one in decisions for goes in one.pruned_manifests()),
        blobs=tuple(gone),
        relisted=tuple(update for one in decisions for update in one.relisted),
        spared=(*(stays for one in decisions for stays in one.spared_entries()), *spared),
        notes=tuple(note for one in decisions for note in one.notes(here)),
    )


def _blob(blob: HeldBlob, why: str) -> PruningEntry:
    return PruningEntry(PrunedKind.BLOB, "", "", blob.digest, blob.size, why)


def _young(since: int | None, now: int, grace: int) -> bool:
    """Return whether a known age is below the grace period, or negative, because clocks differ."""
    return since is not None and now - since < grace


def _why_young(grace: int) -> str:
    return f"younger than {_span(grace)}: a publication may be in progress"


# --- tags ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tags:
    """Tags of a repository that the rules prune.

    `going`: tag → reason; `untimed`: number of tags of unknown age; `unknown_pulls`: rules that lack pull times.
    """

    going: dict[str, str] = field(default_factory=dict)
    untimed: int = 0
    unknown_pulls: set[str] = field(default_factory=set)


def _decide(repository: HeldRepository, rules: Iterable[RetentionRule], now: int) -> _Tags:
    """Decide which tags are pruned: the first rule that matches a tag decides.

    Tags that follow their subject are not decided here.
    """
    told = _Tags()
    told.going = {
        tag.name: "left over from a killed pruning"
        for tag in repository.tags
        if tag.name.startswith(PRUNING_TAG_PREFIX)
    }
    undecided = [tag for tag in repository.tags if not follows_subject(tag.name) and tag.name not in told.going]
    for rule in rules:
        if not fnmatchcase(repository.name, rule.repositories):
            continue
        matched = [tag for tag in undecided if _matches(tag.name, rule.tags)]
        undecided = [tag for tag in undecided if not _matches(tag.name, rule.tags)]
        if not (rule.keep is None and rule.younger_than is None and rule.pulled_within is None):
            _apply(rule, matched, now, told)
    return told


def _apply(rule: RetentionRule, matched: list[HeldTag], now: int, told: _Tags) -> None:
    timed = sorted((tag for tag in matched if tag.set_at is not None), key=_newest_first)
    told.untimed += len(matched) - len(timed)
    newest = {tag.name for tag in timed[: rule.keep or 0]}
    for tag in timed:
        assert tag.set_at is not None
        if tag.name in newest or (rule.younger_than is not None and now - tag.set_at <= rule.younger_than):
            continue
        if rule.pulled_within is not None:
            if tag.pulled_at is not None and now - tag.pulled_at <= rule.pulled_within:
                continue
            if tag.pulled_at is None:
                told.unknown_pulls.add(rule.place or rule.tags)
                if rule.keep is None and rule.younger_than is None:  # the rule's only condition is unknown
                    continue
        told.going[tag.name] = _why_not(rule)


def _newest_first(tag: HeldTag) -> tuple[int, str]:
    return (-(tag.set_at or 0), tag.name)


def _matches(tag: str, glob: str) -> bool:
    """Return whether a rule's glob matches a tag.

    Records of moves are matched only by a glob that begins with `move.`.
    """
    return fnmatchcase(tag, glob) and (glob.startswith(MOVE_TAG_PREFIX) or not tag.startswith(MOVE_TAG_PREFIX))


def _why_not(rule: RetentionRule) -> str:
    said = [
        *([f"not among the newest {rule.keep}"] if rule.keep is not None else []),
        *([f"older than {_span(rule.younger_than)}"] if rule.younger_than is not None else []),
        *([f"not known to be pulled within {_span(rule.pulled_within)}"] if rule.pulled_within is not None else []),
    ]
    where = f" ({rule.place})" if rule.place else ""
    return f"{', '.join(said)} of '{rule.tags}' in '{rule.repositories}'{where}"


def _span(seconds: int) -> str:
    """Return a duration for messages: `7 days`, `36 hours`, `90 s`."""
    for unit, length in (("day", 86_400), ("hour", 3600)):
        if seconds >= length and seconds % length == 0:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} s"


# --- one repository ------------------------------------------------------------------------------------

_NEEDED = "used by something that is spared"


class _RepositoryDecision:
    """Decision on one repository: what is kept, what is spared as young, what is pruned."""

    def __init__(self, repository: HeldRepository, rules: MirrorRules, now: int, idle: bool) -> None:
        self.repository = repository
        self._grace = rules.grace
        self._now = now
        self._graph = graph = RepositoryGraph(repository)
        self._tag_decision = _decide(repository, rules.retention, now)
        retained = [
            tag for tag in repository.tags if not follows_subject(tag.name) and tag.name not in self._tag_decision.going
        ]
        # Signed statements on tags refer to untagged anchor manifests, and are kept: their numbers must only grow.
        anchors = [one.digest for one in repository.manifests if one.artifact_type == ANCHOR_TYPE]
        self.kept = graph.reach([*anchors, *(tag.digest for tag in retained)])
        self.kept.tags |= {tag.name for tag in retained}
        self._from_pruned_tags = graph.reach(
            tag.digest for tag in repository.tags if tag.name in self._tag_decision.going
        )
        arrived = self._arrived_long_ago()
        self._young = {
            one.digest
            for one in repository.manifests
            if one.digest not in self.kept
            and (
                repository.lost_tags
                or _young(one.since, now, rules.grace)
                or (one.since is None and not idle and one.digest not in arrived)
            )
        }
        fresh = [
            tag
            for tag in repository.tags
            if follows_subject(tag.name) and tag.name not in self.kept.tags and _young(tag.set_at, now, rules.grace)
        ]
        self.spared = graph.reach(
            self._young | {tag.digest for tag in fresh if tag.name not in graph.lists},
            (tag.digest for tag in fresh if tag.name in graph.lists),
            self.kept,
        )
        self.spared.tags |= {tag.name for tag in fresh}
        self._following = self.kept.tags | self.spared.tags
        self.relisted, self._emptied = self._index_updates()
        rewritten = {update.present for update in self.relisted}
        self._kept_indexes = {
            tag.digest
            for name, tag in graph.lists.items()
            if name in self._following and name not in self._emptied and tag.digest not in rewritten
        }

    def _arrived_long_ago(self) -> frozenset[Digest]:
        """Return the manifests of unknown age that must have arrived long ago.

        A publication puts tags last, and each manifest after those to which it refers. So what is reachable from pruned
        tags, from old manifests, or from referrers of a missing subject is not part of a publication in progress.
        """
        graph = self._graph
        if all(one.since is not None for one in self.repository.manifests):
            return frozenset()
        orphans = [tag for subject, tags in graph.followers.items() if subject not in graph.manifests for tag in tags]
        roots = [tag.digest for tag in orphans if tag.name not in graph.lists]
        for subject, referrers in graph.referrers.items():
            if subject not in graph.manifests:
                roots += referrers
        roots += (
            one.digest
            for one in self.repository.manifests
            if one.since is not None and not _young(one.since, self._now, self._grace)
        )
        reach = graph.reach(roots, (tag.digest for tag in orphans if tag.name in graph.lists))
        return frozenset(
            reach.manifests | reach.lists | self._from_pruned_tags.manifests | self._from_pruned_tags.lists
        )

    def _index_updates(self) -> tuple[tuple[ReferrersUpdate, ...], frozenset[str]]:
        """Return the referrers indexes to rewrite, and the tags of those to remove.

        An index that is kept is rewritten if it lists pruned or missing manifests, and removed if it lists no others.
        """
        relisted: list[ReferrersUpdate] = []
        emptied: set[str] = set()
        for name, tag in sorted(self._graph.lists.items()):
            index = self._graph.manifests.get(tag.digest)
            if index is None or name not in self._following or self._stays(tag.digest):
                continue  # it is young, or kept as an ordinary manifest: left as it is
            listed = {child.digest for child in index.children}
            without = {digest for digest in listed if not self._stays(digest)}
            if without == listed:
                emptied.add(name)
            elif without:
                relisted.append(ReferrersUpdate(self.repository.name, name, tag.digest, tuple(sorted(without))))
        return tuple(relisted), frozenset(emptied)

    def _stays(self, digest: Digest) -> bool:
        """Return whether a manifest is kept or spared, with everything to which it refers."""
        return digest in self.kept.manifests or digest in self.spared.manifests

    # --- results

    def pruned_tags(self) -> Iterator[PruningEntry]:
        """Yield each pruned tag with the reason, by name."""
        for tag in self.repository.tags:
            if tag.name in self._tag_decision.going:
                yield self._tag(tag, self._tag_decision.going[tag.name])
            elif tag.name in self._emptied:
                yield self._tag(tag, "everything it lists is removed")
            elif tag.name not in self._following:
                yield self._tag(tag, "its subject is removed")

    def pruned_manifests(self) -> Iterator[PruningEntry]:
        """Yield each pruned manifest with the reason, by digest."""
        for manifest in self.repository.manifests:
            if not self._stays(manifest.digest) and manifest.digest not in self._kept_indexes:
                yield self._manifest(manifest, self._why_gone(manifest))

    def spared_entries(self) -> Iterator[PruningEntry]:
        """Yield spared tags by name, then spared manifests by digest, with the reason."""
        for tag in self.repository.tags:
            if tag.name in self.spared.tags and tag.name not in self._emptied:
                yield self._tag(tag, "it or its subject is too young")
        for manifest in self.repository.manifests:
            stays = manifest.digest in self.spared.manifests or manifest.digest in self._kept_indexes
            if stays and manifest.digest not in self.kept:
                yield self._manifest(manifest, self._why_spared(manifest))

    def notes(self, blobs: Container[Digest]) -> Iterator[str]:
        """Yield remarks for the operator. `blobs`: all that the mirror has."""
        name, told = self.repository.name, self._tag_decision
        if told.untimed:
            yield f"{name}: {told.untimed} tags of unknown age are kept"
        if self.repository.lost_tags and self._young:
            yield f"{name}: nothing is removed to which a tag may have led that is in .quarantine/rotten"
        for rule in sorted(told.unknown_pulls):
            yield f"{name}: times of pulls are unknown; rule '{rule}' is applied without pulled-within"
        for tag in self.repository.tags:
            if tag.name in self.kept.tags and tag.digest not in self._graph.manifests:
                yield f"{name}:{tag.name} points to {tag.digest}, which is missing"
        for manifest in self.repository.manifests:
            if manifest.planted:
                yield f"{name}@{manifest.digest} is malformed, so nobody published it: `relbuild scrub` tells of it"
            elif manifest.digest in self.kept.manifests:
                lacking = [child for child in manifest.children if child.digest not in self._graph.manifests]
                for one in (*lacking, *(blob for blob in manifest.blobs if blob.digest not in blobs)):
                    yield f"{name}@{manifest.digest} needs {one.digest}, which is missing"

    def _tag(self, tag: HeldTag, why: str) -> PruningEntry:
        return PruningEntry(PrunedKind.TAG, self.repository.name, tag.name, tag.digest, 0, why)

    def _manifest(self, manifest: HeldManifest, why: str) -> PruningEntry:
        return PruningEntry(PrunedKind.MANIFEST, self.repository.name, "", manifest.digest, manifest.size, why)

    def _why_gone(self, manifest: HeldManifest) -> str:
        if any(update.present == manifest.digest for update in self.relisted):
            return "replaced by a version without the removed entries"
        if manifest.digest in self._from_pruned_tags:
            return "only reachable from removed tags"
        if manifest.subject is not None and manifest.subject not in self._graph.manifests:
            return "its subject is missing"
        return "not reachable from any tag"

    def _why_spared(self, manifest: HeldManifest) -> str:
        if manifest.digest not in self._young:
            return _NEEDED
        if self.repository.lost_tags:
            return "a tag that was put aside may have led to it"
        if manifest.since is None:
            return "its age is unknown: a publication may be in progress"
        return _why_young(self._grace)
