"""Plan of a pruning: what goes and why, a pure decision over the inventory of a mirror.

Rules speak of tags. Everything else follows from what the tags that stay reach (`reachability`): what nothing
reaches goes, unless it is so young that a publication may be bringing it just now.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from pipeline.digest import Digest
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
    """Plan what goes of a mirror at `now` (seconds since the epoch) under a keeper's rules.

    `idle`: the keeper vouches that nobody publishes, so that what has no known age counts as old. Without it such a
    thing is spared, unless it is plain that it arrived long ago: a tag points to it, or what it speaks of is gone.
    """
    judged = [_Judgement(repository, rules, now, idle) for repository in inventory.repositories]
    kept = frozenset[Digest]().union(*(one.kept.blobs for one in judged))
    needed = frozenset[Digest]().union(*(one.spared.blobs for one in judged))
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
        tags=tuple(goes for one in judged for goes in one.tags_that_go()),
        manifests=tuple(goes for one in judged for goes in one.manifests_that_go()),
        blobs=tuple(gone),
        relisted=tuple(relisting for one in judged for relisting in one.relisted),
        spared=(*(stays for one in judged for stays in one.what_is_spared()), *spared),
        notes=tuple(note for one in judged for note in one.notes(here)),
    )


def _blob(blob: HeldBlob, why: str) -> PruningEntry:
    return PruningEntry(PrunedKind.BLOB, "", "", blob.digest, blob.size, why)


def _young(since: int | None, now: int, grace: int) -> bool:
    """A time to come is young too: clocks of two machines differ."""
    return since is not None and now - since < grace


def _why_young(grace: int) -> str:
    return f"younger than {_span(grace)}: a publication may be in progress"


# --- tags ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tags:
    """The tags of a repository that go by the rules, and why.

    Also what a keeper should know of it.
    """

    going: dict[str, str] = field(default_factory=dict)
    untimed: int = 0
    unknown_pulls: set[str] = field(default_factory=set)


def _decide(repository: HeldRepository, rules: Iterable[RetentionRule], now: int) -> _Tags:
    """Decide which tags go: the first rule that matches a tag decides.

    Tags that follow what they refer to have no part in it.
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
                if rule.keep is None and rule.younger_than is None:  # the one clause that cannot be asked
                    continue
        told.going[tag.name] = _why_not(rule)


def _newest_first(tag: HeldTag) -> tuple[int, str]:
    return (-(tag.set_at or 0), tag.name)


def _matches(tag: str, glob: str) -> bool:
    """Return whether a rule's glob matches a tag; `*` means what people pull by.

    The records of moves are matched only by a glob that names them.
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
    """A time for people: `7 days`, `36 hours`, `90 s`."""
    for unit, length in (("day", 86_400), ("hour", 3600)):
        if seconds >= length and seconds % length == 0:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} s"


# --- judgement -----------------------------------------------------------------------------------------

_NEEDED = "used by something that is spared"


class _Judgement:
    """The parts of one repository that stay, are spared, and go."""

    def __init__(self, repository: HeldRepository, rules: MirrorRules, now: int, idle: bool) -> None:
        self.repository = repository
        self._grace = rules.grace
        self._now = now
        self._graph = graph = RepositoryGraph(repository)
        self._told = _decide(repository, rules.retention, now)
        staying = [tag for tag in repository.tags if not follows_subject(tag.name) and tag.name not in self._told.going]
        # What is signed of tags hangs on manifests that have none, and stays: numbers must grow for ever.
        anchors = [one.digest for one in repository.manifests if one.artifact_type == ANCHOR_TYPE]
        self.kept = graph.reach([*anchors, *(tag.digest for tag in staying)])
        self.kept.tags |= {tag.name for tag in staying}
        self._left = graph.reach(tag.digest for tag in repository.tags if tag.name in self._told.going)
        settled = self._settled()
        self._young = {
            one.digest
            for one in repository.manifests
            if one.digest not in self.kept
            and (_young(one.since, now, rules.grace) or (one.since is None and not idle and one.digest not in settled))
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
        self.relisted, self._emptied = self._look_at_lists()
        anew = {relisting.present for relisting in self.relisted}
        self._lists = {
            tag.digest
            for name, tag in graph.lists.items()
            if name in self._following and name not in self._emptied and tag.digest not in anew
        }

    def _settled(self) -> frozenset[Digest]:
        """Return what arrived long ago, although the mirror does not say when.

        A publication puts tags last, and what is referred to before what refers to it.
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
        return frozenset(reach.manifests | reach.lists | self._left.manifests | self._left.lists)

    def _look_at_lists(self) -> tuple[tuple[ReferrersUpdate, ...], frozenset[str]]:
        """Return the lists of referrers that must be relisted, and the tags of those that go.

        Lists are relisted that stay and name what does not; those go that name nothing else.
        """
        relisted: list[ReferrersUpdate] = []
        emptied: set[str] = set()
        for name, tag in sorted(self._graph.lists.items()):
            index = self._graph.manifests.get(tag.digest)
            if index is None or name not in self._following or self._stays(tag.digest):
                continue  # one that is young, or that somebody pulls by another tag, is left as it is
            listed = {child.digest for child in index.children}
            without = {digest for digest in listed if not self._stays(digest)}
            if without == listed:
                emptied.add(name)
            elif without:
                relisted.append(ReferrersUpdate(self.repository.name, name, tag.digest, tuple(sorted(without))))
        return tuple(relisted), frozenset(emptied)

    def _stays(self, digest: Digest) -> bool:
        """Return whether a manifest stays, with all that it refers to."""
        return digest in self.kept.manifests or digest in self.spared.manifests

    # --- results

    def tags_that_go(self) -> Iterator[PruningEntry]:
        """Yield each tag that goes, by name, with why."""
        for tag in self.repository.tags:
            if tag.name in self._told.going:
                yield self._tag(tag, self._told.going[tag.name])
            elif tag.name in self._emptied:
                yield self._tag(tag, "everything it lists is removed")
            elif tag.name not in self._following:
                yield self._tag(tag, "its subject is removed")

    def manifests_that_go(self) -> Iterator[PruningEntry]:
        """Yield each manifest that goes, by digest, with why."""
        for manifest in self.repository.manifests:
            if not self._stays(manifest.digest) and manifest.digest not in self._lists:
                yield self._manifest(manifest, self._why_gone(manifest))

    def what_is_spared(self) -> Iterator[PruningEntry]:
        """Tags by name, then manifests by digest, with why."""
        for tag in self.repository.tags:
            if tag.name in self.spared.tags and tag.name not in self._emptied:
                yield self._tag(tag, "it or its subject is too young")
        for manifest in self.repository.manifests:
            stays = manifest.digest in self.spared.manifests or manifest.digest in self._lists
            if stays and manifest.digest not in self.kept:
                yield self._manifest(manifest, self._why_spared(manifest))

    def notes(self, blobs: Container[Digest]) -> Iterator[str]:
        """Yield what a keeper should know. `blobs`: all that the mirror has."""
        name, told = self.repository.name, self._told
        if told.untimed:
            yield f"{name}: {told.untimed} tags of unknown age are kept"
        for rule in sorted(told.unknown_pulls):
            yield f"{name}: times of pulls are unknown; rule '{rule}' is applied without pulled-within"
        for tag in self.repository.tags:
            if tag.name in self.kept.tags and tag.digest not in self._graph.manifests:
                yield f"{name}:{tag.name} points to {tag.digest}, which is missing"
        for manifest in self.repository.manifests:
            if manifest.digest in self.kept.manifests:
                for blob in manifest.blobs:
                    if blob.digest not in blobs:
                        yield f"{name}@{manifest.digest} needs {blob.digest}, which is missing"

    def _tag(self, tag: HeldTag, why: str) -> PruningEntry:
        return PruningEntry(PrunedKind.TAG, self.repository.name, tag.name, tag.digest, 0, why)

    def _manifest(self, manifest: HeldManifest, why: str) -> PruningEntry:
        return PruningEntry(PrunedKind.MANIFEST, self.repository.name, "", manifest.digest, manifest.size, why)

    def _why_gone(self, manifest: HeldManifest) -> str:
        if any(relisting.present == manifest.digest for relisting in self.relisted):
            return "replaced by a version without the removed entries"
        if manifest.digest in self._left:
            return "only reachable from removed tags"
        if manifest.subject is not None and manifest.subject not in self._graph.manifests:
            return "its subject is missing"
        return "not reachable from any tag"

    def _why_spared(self, manifest: HeldManifest) -> str:
        if manifest.digest not in self._young:
            return _NEEDED
        if manifest.since is None:
            return "its age is unknown: a publication may be in progress"
        return _why_young(self._grace)
