"""Read what is published of the products of a night: records, images and tags on the mirror.

What the store remembers of a product counts if the mirror still has it; else what is attested there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

from pipeline.errors import UsageError, VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.image_tags import LATEST, floating_tags, immutable_tag
from pipeline.mirror.protocol import Mirror, Repository
from pipeline.mirror.published import read_published
from pipeline.mirror.signed_identity import require_identity
from pipeline.mirror.tag_check import check_tag
from pipeline.model.night_record import Product
from pipeline.nightly.inputs_record import PublishedProduct, attested_inputs, recall_published
from pipeline.nightly.job import RunSettings, signed_by_present_key
from pipeline.nightly.night_key import password_from_environment
from pipeline.nightly.published_tags import read_tag, require_readable_tags
from pipeline.oci import VerifyingKey, load_verifying_key
from pipeline.prepare import BuildEnvironment


@dataclass(slots=True)
class PublishedProducts:
    """The published products of a mirror, which is None where there is none yet.

    `previous` is what the last night said, `remembered` what the store knew and the mirror has, by product.
    """

    settings: RunSettings
    build_env: BuildEnvironment
    mirror: Mirror | None
    previous: Mapping[str, Product]
    remembered: dict[str, PublishedProduct] = field(default_factory=dict)
    _key: VerifyingKey | None = None
    _told: set[str] = field(default_factory=set)

    def last(self, name: str) -> Product | None:
        """Return the product as the night before reported it."""
        known = self._recalled(name) if self.mirror else None
        return known.product if known is not None and known.product is not None else self.previous.get(name)

    def _recalled(self, name: str) -> PublishedProduct | None:
        return recall_published(self.build_env.store, str(self.settings.to), name, self._warn)

    def _warn(self, text: str) -> None:
        """Warn once: the same document may be read several times."""
        if text not in self._told:
            self._told.add(text)
            self.build_env.progress.warn(text)

    def looked_for_templates(self, name: str) -> tuple[str, ...]:
        """Return the names of the templates that a product's image looked for, by the store."""
        known = self._recalled(name)
        return known.record.templates if known is not None else ()

    def find(self, product: Product) -> PublishedProduct | None:
        """Return the product as it is published on the mirror.

        It comes from the store's memory if the mirror still has it, else from what is attested there. None: nothing, or
        nothing that can be compared with.
        """
        if self.mirror is None:
            return None
        repository = self.mirror.repository(product.name)
        known = self._recalled(product.name)
        known = self._of_present_key(known) if known is not None and _is_of(known, product) else None
        try:
            if known is not None and read_tag(repository, known.immutable) == known.digest:
                self.remembered[product.name] = known
                return known
            return self._attested(repository, product)
        except (UsageError, VerificationError) as error:
            self._warn(f"what is published of '{product.name}' cannot be read, so it is rebuilt: {error}")
            return None

    def has_latest(self, product: Product) -> bool:
        """Return whether a product has its newest tag. Raises PublicationRefused `tag-unreadable`."""
        return self.mirror is not None and read_tag(self.mirror.repository(product.name), LATEST) is not None

    def require_readable(self, product: Product) -> None:
        """Refuse a product that is to be published under a tag that cannot be read.

        Raises PublicationRefused `tag-unreadable`.
        """
        if self.mirror is None:
            return
        last = self.last(product.name)
        known = last.published.tags if last is not None else ()
        require_readable_tags(self.mirror.repository(product.name), (LATEST, *known))

    def _attested(self, repository: Repository, product: Product) -> PublishedProduct | None:
        last = self.last(product.name)
        digest = last.published.digest if last else None
        reference = digest or read_tag(repository, LATEST)
        if reference is None or self.settings.key is None:
            return None
        held = read_published(repository, reference)
        if len(held.images) != len(product.architectures):
            return None
        require_identity(repository, held.manifest, self._public(self.settings.key))
        if digest is None:  # else an older image of the product would be taken for the newest
            key, now = self._public(self.settings.key), int(self.build_env.clock() * 1000)
            check_tag(repository, LATEST, reference, key, (repository.identity,), now=now, allow_stale=True)
        # Of an index, it is attested of each image.
        attested = held.digest if len(held.images) == 1 else held.images[0].digest
        record = attested_inputs(repository, attested, self._public(self.settings.key), self._warn)
        immutable = immutable_tag(held.version, held.created, held.digest)
        if record is None or read_tag(repository, immutable) != held.digest:
            return None
        known = last if last and last.published.digest == held.digest else product
        tags = tuple(tag for tag in floating_tags(held.version) if read_tag(repository, tag) == held.digest)
        published = replace(known.published, version=held.version, tags=tags)
        return self._of_present_key(
            PublishedProduct(record, held.digest, immutable, replace(known, published=published))
        )

    def _of_present_key(self, known: PublishedProduct) -> PublishedProduct:
        """Return a product with the present key as its input, where a former one signed it."""
        return replace(known, record=signed_by_present_key(known.record, self.settings))

    def _public(self, path: Path) -> VerifyingKey:
        if self._key is None:
            ask = password_from_environment(self.settings)
            key = load_verifying_key(path, ask, progress=self.build_env.progress)
            self._key = replace(key, former=self.settings.former) if self.settings.former else key
        return self._key


def _is_of(on_mirror: PublishedProduct, product: Product) -> bool:
    known = on_mirror.product
    return known is not None and (known.platform, known.arch) == (product.platform, product.arch)
