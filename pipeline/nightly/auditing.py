"""Security fixes of a night: those that each product has taken in, and those that it lacks.

A product lacks what its repositories offer and its image does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.errors import RelbuildError
from pipeline.gather import Workshop
from pipeline.model.advisory import ImagePackage
from pipeline.model.night import Outcome, Product
from pipeline.model.published_image import PackageSize
from pipeline.nightly.planning import Offer
from pipeline.repos import open_repositories
from pipeline.resolve import fixes_taken, missing_fixes, read_bulletin, streams_in_use


def read_bulletins(offers: Sequence[Offer], workshop: Workshop) -> None:
    """Read the advisories of the repositories of every platform.

    Those of a platform that cannot be read are left: what needed them failed, or was built from locks, and then it is
    said.
    """
    for offer in offers:
        if offer.error is not None:
            continue
        try:
            if not offer.repositories:
                offer.repositories = open_repositories(
                    offer.platform,
                    offer.arch,
                    variables=workshop.environment,
                    store=workshop.store,
                    offline=workshop.offline,
                    progress=workshop.progress,
                )
            offer.bulletin = read_bulletin(
                offer.repositories, offer.arch, store=workshop.store, progress=workshop.progress
            )
        except RelbuildError as error:
            workshop.progress.warn(f"{offer.platform.name}: security fixes are unknown: {error}")


def audited(product: Product, offers: Sequence[Offer], before: Mapping[str, Product]) -> Product:
    """Return the product with the fixes that it lacks.

    Where it was built anew, also with those that came in since `before`.
    """
    offer = next((one for one in offers if (one.platform.name, one.arch) == (product.platform, product.arch)), None)
    if offer is None or offer.bulletin is None:
        return product
    bulletin, packages = offer.bulletin, _packages(product.published.packages)
    streams = streams_in_use(packages, bulletin.streams)
    missing = missing_fixes(packages, bulletin.advisories.given, streams=streams)
    product = replace(product, published=replace(product.published, missing=missing))
    former = before.get(product.name)
    if product.run.outcome is Outcome.BUILT and former is not None and former.published.packages:
        given = bulletin.advisories.given
        fixes = fixes_taken(_packages(former.published.packages), packages, given, streams=streams)
        product = replace(product, published=replace(product.published, fixes=fixes))
    return product


def _packages(sizes: Sequence[PackageSize]) -> list[ImagePackage]:
    return [ImagePackage.of(one.name, one.evr, one.arch, one.source) for one in sizes]
