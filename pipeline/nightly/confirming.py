"""Confirmation on the mirror, by the process that gave the work, of what a worker reports as published."""

from __future__ import annotations

from pipeline.errors import PublicationRefused
from pipeline.mirror.protocol import Mirror
from pipeline.model.night import Outcome, Product


def demand_same(answered: Product, given: Product) -> None:
    """Refuse an answer about another product than was given. Raises PublicationRefused `answer-foreign`."""
    for name in ("name", "platform", "arch", "recipe", "parent"):
        if getattr(answered, name) != getattr(given, name):
            raise PublicationRefused(
                "answer-foreign",
                f"the worker was given '{given.name}' and answered for '{answered.name}' ({name} differs)",
                hint="what it published is on the mirror; look at the worker, and set the tags right",
            )


def demand_published(product: Product, mirror: Mirror, destination: str) -> None:
    """Ask the mirror whether every tag of a product that was published points to its digest.

    Raises PublicationRefused `publication-missing`, and what asking the mirror raises.
    """
    if product.outcome not in (Outcome.BUILT, Outcome.RETESTED) or product.digest is None:
        return
    repository = mirror.repository(product.name)
    # A test alone moves no floating tag: those may have been moved back by a person.
    floating = product.tags if product.outcome is Outcome.BUILT else ()
    for tag in dict.fromkeys((product.immutable, *floating)):
        found = repository.resolve(tag)
        if found != product.digest:
            raise PublicationRefused(
                "publication-missing",
                f"{product.worker or 'the worker'} reports {product.digest} as published, but at {destination} "
                f"'{product.name}:{tag}' {f'points to {found}' if found else 'does not exist'}",
                place=f"{destination}/{product.name}:{tag}",
                hint="every worker must reach the same mirror by this name: a `dir:` mirror is one file system at one "
                "path on every machine; if another publisher moved the tag meanwhile, run the night again",
            )
