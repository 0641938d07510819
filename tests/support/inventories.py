"""What mirrors hold, made by names: each name is a digest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.digest import Digest
from pipeline.mirror.retention.pruning import (
    HeldBlob,
    HeldManifest,
    HeldRepository,
    HeldTag,
    Inventory,
    PruningEntry,
    PruningPlan,
)
from pipeline.model.image import Descriptor
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.oci import media_types

NOW = 1_800_000_000
DAY = 86_400
OLD = NOW - 100 * DAY
YOUNG = NOW - 60
KEEP_NONE = MirrorRules(retention=(RetentionRule(tags="gone*", keep=0),))


def digest(name: str) -> Digest:
    return Digest.of(name.encode())


def descriptor(name: str) -> Descriptor:
    return Descriptor("application/octet-stream", digest(name), 10)


@dataclass
class InventoryMaker:
    """A repository, made by names: each name is a digest."""

    name: str = "product"
    tags: list[HeldTag] = field(default_factory=list)
    manifests: list[HeldManifest] = field(default_factory=list)

    def image(self, name: str, *blobs: str, since: int | None = OLD, subject: str = "") -> InventoryMaker:
        said = digest(subject) if subject else None
        layers = tuple(descriptor(blob) for blob in blobs)
        self.manifests.append(HeldManifest(digest(name), media_types.MANIFEST, 100, (), layers, said, since=since))
        return self

    def index(self, name: str, *children: str, since: int | None = OLD) -> InventoryMaker:
        listed = tuple(descriptor(child) for child in children)
        self.manifests.append(HeldManifest(digest(name), media_types.INDEX, 50, listed, since=since))
        return self

    def tag(self, tag: str, name: str, set_at: int | None = OLD, pulled_at: int | None = None) -> InventoryMaker:
        self.tags.append(HeldTag(tag, digest(name), set_at, pulled_at))
        return self

    def follow(self, of: str, name: str, ending: str = "", set_at: int | None = OLD) -> InventoryMaker:
        """A list of referrers, or with `.sig` a signature, under the tag that speaks of `of`."""
        return self.tag(f"sha256-{digest(of).hex}{ending}", name, set_at)

    @property
    def held(self) -> HeldRepository:
        return HeldRepository(
            self.name,
            tuple(sorted(self.tags, key=lambda tag: tag.name)),
            tuple(sorted(self.manifests, key=lambda one: one.digest)),
        )


def mirror(*makers: InventoryMaker, blobs: Iterable[str] = (), young_blobs: Iterable[str] = ()) -> Inventory:
    """Repositories, with all blobs that their manifests need, and more."""
    since = {digest(name): YOUNG for name in young_blobs}
    found = {blob.digest for maker in makers for one in maker.manifests for blob in one.blobs}
    found |= {digest(name) for name in blobs} | set(since)
    return Inventory(
        tuple(maker.held for maker in sorted(makers, key=lambda one: one.name)),
        tuple(HeldBlob(one, 10, since.get(one, OLD)) for one in sorted(found)),
    )


def names(judged: Iterable[PruningEntry], *known: str) -> set[str]:
    """Digests back into names."""
    table = {digest(name): name for name in known}
    return {one.tag or table.get(one.digest, str(one.digest)) for one in judged}


def gone(plan: PruningPlan, *known: str) -> set[str]:
    return names((*plan.tags, *plan.manifests, *plan.blobs), *known)
