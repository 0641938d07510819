"""Verify a worker's result: the given product, and its published tags on the mirror.

The process that submitted the job checks it.
"""

from __future__ import annotations

from dataclasses import fields

from pipeline.errors import PublicationRefused
from pipeline.mirror.protocol import Mirror
from pipeline.model.night_record import Outcome, Product
from pipeline.nightly.job import MemberImage


def require_same_product(answered: Product, given: Product) -> None:
    """Refuse an answer about another product than was given.

    Raises PublicationRefused `answer-foreign`.
    """
    for name in (one.name for one in fields(Product) if one.name not in ("run", "published")):
        if getattr(answered, name) != getattr(given, name):
            raise PublicationRefused(
                "answer-foreign",
                f"the worker returned a result for '{answered.name}' instead of '{given.name}' ({name} differs)",
                hint="its publication is on the mirror; check the worker, and correct the tags",
            )


def require_member_of(member: MemberImage, arch: str) -> None:
    """Refuse the image of another architecture than a task was for.

    Raises PublicationRefused `answer-foreign`.
    """
    if member.architecture != arch:
        raise PublicationRefused(
            "answer-foreign",
            f"the worker returned an image for '{member.architecture}' instead of '{arch}'",
            hint="no tag points to it; check the worker, and run nightly again",
        )


def require_published(product: Product, mirror: Mirror, destination: str) -> None:
    """Ask the mirror whether every tag of a product that was published points to its digest.

    Raises PublicationRefused `publication-missing`, and what asking the mirror raises.
    """
    if product.run.outcome not in (Outcome.BUILT, Outcome.RETESTED) or product.published.digest is None:
        return
    repository = mirror.repository(product.name)
    # A test alone moves no floating tag: those may have been moved back by a person.
    floating = product.published.tags if product.run.outcome is Outcome.BUILT else ()
    image = product.published
    for tag in dict.fromkeys((image.immutable, *floating)):
        found = repository.resolve(tag)
        if found != image.digest:
            raise PublicationRefused(
                "publication-missing",
                f"{product.run.worker or 'the worker'} reports {image.digest} as published, but on {destination} "
                f"'{product.name}:{tag}' {f'points to {found}' if found else 'does not exist'}",
                place=f"{destination}/{product.name}:{tag}",
                hint="all workers must reach the same mirror by this address: a `dir:` mirror is one file system "
                "at one path on every machine; if another publisher moved the tag meanwhile, run nightly again",
            )
