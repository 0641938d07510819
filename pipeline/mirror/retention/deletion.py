"""Prune a mirror with an API (a registry): plan, delete tags and manifests, report.

`pruning_plan` decides what is deleted. Deletions are final, and the registry's own garbage collection, which its
operator must run, frees the space. A registry has no lock against publishers, so an inventory of a repository is taken
again just before something is deleted from it, and only what both plans remove is deleted.

The manifests to delete are recorded first, in an index under a `prune.` tag. Otherwise, once an index is deleted, its
images could not be told from images that are just being published, and what a killed pruning left would be spared for
ever.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.digest import Digest, canonical_json
from pipeline.errors import EnvironmentLacking
from pipeline.mirror.inventory import join_inventories, repository_inventory
from pipeline.mirror.protocol import (
    DELETE_UNSUPPORTED,
    Mirror,
    Repository,
    TagConflict,
)
from pipeline.mirror.retention.access_log import Pulls, with_pulls
from pipeline.mirror.retention.pruning import (
    HeldRepository,
    PruningEntry,
    PruningPlan,
    PruningResult,
    ReferrersUpdate,
)
from pipeline.mirror.retention.pruning_plan import plan_pruning
from pipeline.mirror.retention.reachability import PRUNING_TAG_PREFIX, RepositoryGraph
from pipeline.mirror.retention.referrers_rewrite import add_rebuilt_indexes
from pipeline.model.image import Descriptor
from pipeline.model.manifests import Manifest
from pipeline.model.rules import MirrorRules
from pipeline.oci import media_types
from pipeline.oci.image_manifest import descriptor_json

PRUNING_TYPE = "application/vnd.relbuild.pruning.v1"
"""The artifactType of an index that lists the manifests to be deleted."""

_RECORDED = 10_000
"""Manifests in one such index: with 200 bytes each, half of what registries accept (4 MiB)."""


def prune_by_deletion(
    mirror: Mirror,
    rules: MirrorRules,
    now: int,
    *,
    pulls: Pulls | None = None,
    dry_run: bool = False,
    idle: bool = False,
    instructions: tuple[str, ...] = (),
) -> PruningResult:
    """Delete from a mirror what the rules do not keep.

    `now` is seconds since the epoch; `pulls`: when tags were last pulled, where that is known; `idle`: the operator
    assures that nobody publishes, so that content of unknown age counts as old. With `dry_run` nothing is changed.
    `instructions`: the operator's steps afterwards to free the space.

    In the result, `size` is the bytes of the deleted manifests; `size_after` is what the registry's garbage collection
    frees of manifests and blobs, if no other repository on that registry needs them.

    Raises EnvironmentLacking if the registry cannot be reached or refuses; VerificationError if a manifest cannot be
    read.
    """
    inventory = mirror.inventory()
    held = inventory.repositories
    plan, lists = add_rebuilt_indexes(plan_pruning(with_pulls(inventory, pulls), rules, now, idle=idle), mirror)
    done = plan
    refused: list[PruningEntry] = []
    if not dry_run:
        gone: set[tuple[str, Digest]] = set()
        going = {one.repository for one in (*plan.tags, *plan.manifests)} | {one.repository for one in plan.relisted}
        for name in sorted(going):
            repository = mirror.repository(name)
            now_held = repository_inventory(name, repository)
            again = plan_pruning(with_pulls(join_inventories((now_held,)), pulls), rules, now, idle=idle)
            common = _agreed(plan, again, name)
            own = [(update, index) for update, index in lists if update in common.relisted]
            deletion = _Deletion(repository, now_held, common, own)
            deletion.run()
            gone |= {(name, digest) for digest in deletion.gone}
            refused += deletion.refused
        done = _carried_out(plan, held, gone)
    size = sum(one.size for one in done.manifests)
    sizes = {one.digest: one.size for one in done.manifests}
    gone_for_all = sizes.keys() - _still_held(held, done)
    return PruningResult(
        mirror.url,
        dry_run,
        plan,
        size,
        refused=tuple(refused),
        instructions=() if done.size == 0 else instructions,
        size_after=sum(sizes[digest] for digest in gone_for_all) + sum(one.size for one in done.blobs),
    )


def _agreed(plan: PruningPlan, again: PruningPlan, name: str) -> PruningPlan:
    """Return the part of a plan for one repository that a second plan agrees with."""
    tags, manifests, lists = frozenset(again.tags), frozenset(again.manifests), frozenset(again.relisted)
    return PruningPlan(
        tags=tuple(one for one in plan.tags if one.repository == name and one in tags),
        manifests=tuple(one for one in plan.manifests if one.repository == name and one in manifests),
        relisted=tuple(one for one in plan.relisted if one.repository == name and one in lists),
    )


def _still_held(held: tuple[HeldRepository, ...], done: PruningPlan) -> set[Digest]:
    """Return the manifests that some repository still has: a registry's repositories share them."""
    gone = {(one.repository, one.digest) for one in done.manifests}
    return {
        one.digest for repository in held for one in repository.manifests if (repository.name, one.digest) not in gone
    }


def _carried_out(plan: PruningPlan, held: tuple[HeldRepository, ...], gone: set[tuple[str, Digest]]) -> PruningPlan:
    """Return the part of a plan that was carried out: manifests in `gone`, blobs now unused."""
    still = {
        blob.digest
        for repository in held
        for manifest in repository.manifests
        if (repository.name, manifest.digest) not in gone
        for blob in manifest.blobs
    }
    return PruningPlan(
        manifests=tuple(one for one in plan.manifests if (one.repository, one.digest) in gone),
        blobs=tuple(one for one in plan.blobs if one.digest not in still),
    )


class _Deletion:
    """Deletion from one repository.

    `gone`: the deleted manifests; `refused`: entries of the plan that the registry did not delete, with the reason.
    """

    def __init__(
        self,
        repository: Repository,
        held: HeldRepository,
        plan: PruningPlan,
        lists: Sequence[tuple[ReferrersUpdate, Manifest]],
    ) -> None:
        self._repository = repository
        self._held = held
        self._plan = plan
        self._lists = lists
        self.gone: list[Digest] = []
        self.refused: list[PruningEntry] = []
        self._forbidden = False
        self._registry_keeps_tags: bool | None = None

    def run(self) -> None:
        """Rewrite referrers indexes, then delete manifests with their tags, then the remaining tags."""
        going = {one.digest: one for one in self._plan.manifests}
        for update, index in self._lists:
            try:
                self._repository.put_auxiliary(update.tag, index, expected=update.present)
            except TagConflict:  # somebody attached something: left to the next pruning
                going.pop(update.present, None)
        tags = {tag.tag: tag.digest for tag in self._plan.tags}
        records = self._record(going)
        pointing: dict[Digest, list[str]] = {}
        for tag, digest in {**tags, **records}.items():
            pointing.setdefault(digest, []).append(tag)
        for digest in (*_deletion_order(self._held, going), *sorted(set(records.values()))):
            if self._try(functools.partial(self._repository.remove_manifest, digest), going.get(digest)):
                self.gone.append(digest)
                self._delete_tags_of(pointing.pop(digest, []), digest)
        left = set(self._repository.tags())
        known = {tag.tag: tag for tag in self._plan.tags}
        for digest, names in pointing.items():
            for tag in names:
                if tag in left:
                    self._delete_tag(tag, digest, known.get(tag))

    def _delete_tags_of(self, tags: Sequence[str], digest: Digest) -> None:
        """Delete the tags of a deleted manifest where the registry keeps them.

        Most registries delete a manifest's tags with it, as distribution-spec says; a few keep them.
        """
        for tag in tags:
            if self._registry_keeps_tags is None:
                self._registry_keeps_tags = self._repository.resolve(tag) == digest
            if self._registry_keeps_tags:
                self._delete_tag(tag, digest, None)

    def _delete_tag(self, tag: str, digest: Digest, one: PruningEntry | None) -> None:
        with contextlib.suppress(TagConflict):  # it was moved meanwhile, and stays
            self._try(lambda: self._repository.remove_tag(tag, digest), one)

    def _try(self, delete: Callable[[], None], one: PruningEntry | None) -> bool:
        """Call `delete`; return False if the registry allows no deletions, and then try no more."""
        if not self._forbidden:
            try:
                delete()
            except EnvironmentLacking as error:
                if error.code != DELETE_UNSUPPORTED:
                    raise
                self._forbidden = True
            else:
                return True
        if one is not None:
            self.refused.append(replace(one, why="cannot be removed by this registry's API"))
        return False

    def _record(self, going: dict[Digest, PruningEntry]) -> dict[str, Digest]:
        """Record the manifests to be deleted under `prune.` tags; return tag → record.

        Records of killed prunings are returned too, and taken out of `going`: records are deleted last. The same
        content gets the same tag, so that a registry that deletes nothing does not fill up with records.
        """
        records = {
            tag.tag: tag.digest
            for tag in self._plan.tags
            if tag.tag.startswith(PRUNING_TAG_PREFIX) and tag.digest in going
        }
        for digest in records.values():
            going.pop(digest, None)
        types = {one.digest: one.media_type for one in self._held.manifests}
        rows = [descriptor_json(Descriptor(types[one], one, going[one].size)) for one in sorted(going)]
        for start in range(0, len(rows), _RECORDED):
            data = {
                "schemaVersion": 2,
                "mediaType": media_types.INDEX,
                "artifactType": PRUNING_TYPE,
                "manifests": rows[start : start + _RECORDED],
            }
            record = Manifest(media_types.INDEX, canonical_json(data))
            tag = f"{PRUNING_TAG_PREFIX}{record.digest.hex[:32]}"
            if records.get(tag) != record.digest:
                with contextlib.suppress(TagConflict):  # another pruning writes the same
                    self._repository.put_auxiliary(tag, record, None)
                records[tag] = record.digest
        return records


def _deletion_order(held: HeldRepository, going: Mapping[Digest, object]) -> Iterator[Digest]:
    """Yield the manifests to delete: an index before its images, a subject before its referrers.

    So a client that finds one of them still finds everything to which it leads. Each is followed by what belongs to it,
    so that a killed pruning leaves little over.
    """
    graph = RepositoryGraph(held)
    below: dict[Digest, list[Digest]] = {}
    for digest in sorted(going):
        manifest = graph.manifests.get(digest)
        parts = [] if manifest is None else [child.digest for child in manifest.children]
        parts += [tag.digest for tag in graph.followers[digest]]
        parts += graph.referrers[digest]
        below[digest] = [part for part in parts if part in going and part != digest]
    inner = {part for parts in below.values() for part in parts}
    seen: set[Digest] = set()
    # What the first pass does not reach is in a cycle, which only tags with forged names can make.
    for root in (*sorted(going.keys() - inner), *sorted(inner)):
        waiting = [root]
        while waiting:
            digest = waiting.pop()
            if digest not in seen:
                seen.add(digest)
                yield digest
                waiting += reversed(below[digest])
