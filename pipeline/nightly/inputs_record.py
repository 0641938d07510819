"""Record of a product's inputs: attested on the mirror, remembered in the store, read.

It is attested on the mirror, and kept in the store so that the mirror need not be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pipeline.digest import Digest, canonical_json, identity
from pipeline.errors import VerificationError
from pipeline.lazy_dataclasses import dataclass
from pipeline.mirror.attestations import find_attested
from pipeline.mirror.protocol import Repository
from pipeline.model.json_form import read_json, refuse_newer, to_json
from pipeline.model.night_record import Product
from pipeline.oci import VerifyingKey
from pipeline.oci.predicates import LOCK
from pipeline.store import Store

InputDigests = Mapping[str, str]
"""Name of an input → its digest, or a word where there is none."""

FORMAT = 1
"""To be raised when a new record cannot be compared with former ones."""


@dataclass(frozen=True, slots=True)
class InputsRecord:
    """The inputs that an image that passed was made from and tested with.

    `facts` are (input, digest), `templates` the names of the templates that were looked for,
    and `lock` is the lock as text.
    """

    facts: tuple[tuple[str, str], ...]
    templates: tuple[str, ...]
    lock: str

    @property
    def inputs(self) -> InputDigests:
        """`facts` as a mapping."""
        return dict(self.facts)


@dataclass(frozen=True, slots=True)
class PublishedProduct:
    """A published product on a mirror.

    Its record, the image's digest and its immutable tag, and the last night's `Product` (None: unknown).
    """

    record: InputsRecord
    digest: Digest
    immutable: str
    product: Product | None = None


def record_predicate(record: InputsRecord) -> bytes:
    """Write a record as the predicate of an attestation."""
    value = to_json(record)
    assert isinstance(value, dict)
    return canonical_json({"format": FORMAT, **value})


def attested_inputs(
    repository: Repository, image: Digest, key: VerifyingKey, warn: Callable[[str], None]
) -> InputsRecord | None:
    """Return the newest record that `key` attests of an image.

    It is in this release's form or another's; None if there is none that can be read, and `warn` is told why.
    """
    good, _ = find_attested(repository, image, LOCK, key)
    why = ""
    for one in reversed(good):
        try:
            return parse_inputs_record(one.statement.predicate)
        except (ValueError, RecursionError, VerificationError) as error:
            why = why or str(error)
    if why:
        warn(f"the attested inputs of {image} cannot be read, so it is rebuilt: {why}")
    return None


def parse_inputs_record(predicate: bytes) -> InputsRecord:
    """Parse what `record_predicate` wrote. Raises ValueError, VerificationError `format-newer`."""
    value = json.loads(predicate)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    refuse_newer("the record of a product's inputs", value.get("format"), FORMAT)
    return read_json(InputsRecord, value)


def _name(destination: str, product: str) -> Digest:
    return identity("nightly", FORMAT, to=destination, product=product)


def recall_published(
    store: Store, destination: str, product: str, warn: Callable[[str], None]
) -> PublishedProduct | None:
    """Recall from the store the `PublishedProduct` of a product on a mirror.

    It is found whatever platform it was built for. None if there is none; also if it cannot be read, and then `warn` is
    told why.
    """
    known = store.recall(_name(destination, product))
    try:
        return None if known is None else read_json(PublishedProduct, known)
    except (ValueError, VerificationError) as error:
        warn(f"the cached record of '{product}' cannot be read, so the mirror is queried: {error}")
        return None


def remember_published(store: Store, destination: str, product: Product, on_mirror: PublishedProduct) -> None:
    """Remember a `PublishedProduct` in the store."""
    store.remember(_name(destination, product.name), to_json(on_mirror))
