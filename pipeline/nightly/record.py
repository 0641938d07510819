"""What is kept of a product from night to night: signed beside its image on the mirror, and in the store so that the
mirror need not be asked."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.digest import Digest, canonical_json, identity
from pipeline.errors import VerificationError
from pipeline.mirror.attesting import find_attested
from pipeline.mirror.repository import Repository
from pipeline.model.json_form import from_json, to_json
from pipeline.model.night import Product
from pipeline.nightly.inputs import Facts
from pipeline.oci import VerifyingKey
from pipeline.oci.predicates import LOCK
from pipeline.store import Store

FORMAT = 1
"""Raise it when what is kept cannot be compared with what was kept before."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an image that passed was made from and tested with: `facts` by name, the names of the `templates` that took
    part, and the `lock` as text."""

    facts: tuple[tuple[str, str], ...]
    templates: tuple[str, ...]
    lock: str

    @property
    def inputs(self) -> Facts:
        """`facts` as a mapping."""
        return dict(self.facts)


@dataclass(frozen=True, slots=True)
class Standing:
    """A product as it stands on a mirror: its record, the image's digest and its immutable tag, and what the last night
    said of it (None: nobody knows)."""

    record: Record
    digest: Digest
    immutable: str
    product: Product | None = None


def predicate(record: Record) -> bytes:
    """The record as it is attested."""
    value = to_json(record)
    assert isinstance(value, dict)
    return canonical_json({"format": FORMAT, **value})


def attested_record(repository: Repository, image: Digest, key: VerifyingKey) -> Record | None:
    """The newest record that `key` attests of an image; None if there is none that can be read."""
    good, _ = find_attested(repository, image, LOCK, key)
    for one in reversed(good):
        try:
            value = json.loads(one.statement.predicate)
            if isinstance(value, dict) and value.pop("format", None) == FORMAT:
                return from_json(Record, value)
        except ValueError:
            continue
    return None


def _name(destination: str, product: str) -> Digest:
    return identity("nightly", FORMAT, to=destination, product=product)


def recall(store: Store, destination: str, product: str) -> Standing | None:
    """What the store remembers of a product on a mirror, whatever platform it was built for."""
    known = store.recall(_name(destination, product))
    try:
        return None if known is None else from_json(Standing, known)
    except (ValueError, VerificationError):
        return None


def remember(store: Store, destination: str, product: Product, standing: Standing) -> None:
    """Let the store remember it."""
    store.remember(_name(destination, product.name), to_json(standing))
