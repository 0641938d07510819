"""A mirror with something of every kind, some of which stays and some of which goes when it is cleaned up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline.digest import Digest
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.references import references, referrer_of, referrers_index
from pipeline.model.image import Descriptor, Image
from pipeline.model.manifests import Manifest
from pipeline.model.publication import Move, MoveCause
from pipeline.model.rules import MirrorRules, RetentionRule
from pipeline.store import Store
from tests.support import mirror_images
from tests.support.old_records import write_down

LATER = int(time.time()) + 10 * 86_400
"""Ten days from now, when everything that a test made is older than any grace."""

RULES = MirrorRules(retention=(RetentionRule(tags="old*", keep=0),))


def tagged(repository: Repository, tag: str, whole: Manifest) -> None:
    repository.point(tag, mirror_images.cleared(whole), repository.resolve(tag))


@dataclass
class PrunableMirror:
    """What there is of every kind. `stays` and `goes`: what is expected of each, by digest; `unlisted`: what goes where
    it can be found without a tag; `orphans`: what speaks of nothing, and goes where it can be found so."""

    store: Store
    stays: set[Digest] = field(default_factory=set)
    goes: set[Digest] = field(default_factory=set)
    unlisted: set[Digest] = field(default_factory=set)
    orphans: set[Digest] = field(default_factory=set)

    def image(self, number: int, stays: bool, padding: int = 0) -> Image:
        """An image whose own layer and config go or stay with it; all share a layer, which stays."""
        made = mirror_images.image(self.store, number, padding)
        blobs = {made.config_descriptor.digest, made.layers[1].blob.digest, made.digest}
        (self.stays if stays else self.goes).update(blobs)
        self.stays.add(made.layers[0].blob.digest)
        return made

    def note(self, repository: Repository, subject: Descriptor, text: str, stays: bool) -> Manifest:
        """Something that speaks of something."""
        whole = mirror_images.attach(repository, subject, text)
        (self.stays if stays else self.goes).add(whole.digest)
        return whole

    def signature(self, repository: Repository, subject: Digest, text: str, stays: bool) -> Manifest:
        """Under a tag, as cosign does."""
        repository.put_blob(mirror_images.EMPTY, b"{}")
        whole = mirror_images.speaks_of(Descriptor("application/x", subject, 1), text)
        whole = Manifest(whole.media_type, whole.data.replace(b'"subject"', b'"was"'))
        repository.put_auxiliary(f"sha256-{subject.hex}.sig", whole, None)
        (self.stays if stays else self.goes).add(whole.digest)
        return whole


def stocked(mirror: Mirror, store: Store) -> PrunableMirror:
    """Shared blobs, indexes of several architectures, an untagged index of an image that stays, referrers of all of
    them, referrers of what is not there."""
    stock = PrunableMirror(store)
    product, other = mirror.repository("product"), mirror.repository("other/product")
    kept, shared, arm, lost = (
        stock.image(number, stays) for number, stays in ((1, True), (2, True), (3, True), (4, False))
    )
    for made in (kept, shared, arm, lost):
        mirror_images.put(product, store, made)
    tagged(product, "9.7", mirror_images.manifest(kept))
    whole = mirror_images.index(shared, arm)
    parent = mirror_images.index(shared, lost)
    untagged = mirror_images.index(kept, lost)
    for index in (whole, parent, untagged):
        product.put_manifest(index)
    tagged(product, "stable", whole)
    write_down(product, Move("old-index", None, parent.digest, 1_700_000_000_000, MoveCause.PUBLISH))
    tagged(product, "old-index", parent)
    stock.stays.add(whole.digest)
    stock.goes.add(parent.digest)
    stock.unlisted.add(untagged.digest)
    # The same image in two repositories: it goes from one of them, and its blobs stay.
    mirror_images.put(other, store, kept)
    tagged(other, "old", mirror_images.manifest(kept))
    tagged(product, "old-1", mirror_images.put(product, store, stock.image(5, False, padding=3000)))
    for made, stays in ((kept, True), (shared, True), (lost, False)):
        stock.signature(product, made.digest, f"signature of {made.digest}", stays)
        for text in ("sbom", "provenance"):
            note = stock.note(product, made.manifest_descriptor, f"{text} of {made.digest}", stays)
            stock.note(product, note.descriptor, f"signature of {text}", stays)
    stock.note(product, parent.descriptor, "of the index that goes", False)
    stock.note(product, whole.descriptor, "of the index that stays", True)
    missing = Descriptor("application/x", Digest.of(b"missing"), 7)
    stock.orphans.add(mirror_images.attach(product, missing, "of what is missing").digest)
    return stock


def require_whole(repository: Repository) -> None:
    """Everything that a tag reaches is there, with what speaks of it; but for the list of what is being deleted."""
    for tag in repository.tags():
        if tag.startswith("prune."):
            continue
        top = repository.manifest(tag)
        assert top is not None, tag
        waiting = [top]
        while waiting:
            said = references(one := waiting.pop())
            for blob in said.blobs:
                assert repository.has_blob(blob.digest), f"{tag} lacks {blob.digest}"
            for child in (*said.manifests, *(each.descriptor for each in repository.referrers(one.digest))):
                inner = repository.manifest(child.digest)
                assert inner is not None, f"{tag} lacks {child.digest}"
                waiting.append(inner)


def falsely_listed(repository: Repository, subject: Digest) -> Manifest:
    """Something in the list of what speaks of `subject` that speaks of something else, which is not there."""
    false = mirror_images.speaks_of(Descriptor("application/x", Digest.of(b"missing"), 7), "speaks of something else")
    repository.put_blob(mirror_images.EMPTY, b"{}")
    repository.put_manifest(false)
    tag = f"sha256-{subject.hex}"
    listing = referrers_index([*repository.referrers(subject), referrer_of(false)])
    repository.put_auxiliary(tag, listing, repository.resolve(tag))
    return false
