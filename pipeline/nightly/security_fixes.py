"""Find the security fixes that products lack or took in, from repositories' advisories.

A product lacks a fix that its repositories offer and its image does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.errors import RelbuildError
from pipeline.model.advisory import ImagePackage
from pipeline.model.night_record import Outcome, Product
from pipeline.model.published_image import PackageSize
from pipeline.nightly.platform_state import PlatformState
from pipeline.prepare import BuildEnvironment
from pipeline.resolve import (
    fixes_taken,
    missing_fixes,
    read_repository_advisories,
    streams_in_use,
)


def read_bulletins(platform_states: Sequence[PlatformState], build_env: BuildEnvironment) -> None:
    """Read the advisories of the repositories of every platform.

    Platforms that cannot be read are skipped: their products failed, or were built from locks, and are reported so.
    """
    for platform_state in platform_states:
        if platform_state.error is not None:
            continue
        try:
            if not platform_state.repositories:
                platform_state.open_repositories(build_env)
            platform_state.bulletin = read_repository_advisories(
                platform_state.repositories, platform_state.arch, store=build_env.store, progress=build_env.progress
            )
        except RelbuildError as error:
            build_env.progress.warn(f"{platform_state.platform.name}: security fixes are unknown: {error}")


def with_security_fixes(
    product: Product, platform_states: Sequence[PlatformState], before: Mapping[str, Product]
) -> Product:
    """Return the product with the fixes that it lacks.

    If it was built again, also with those that it took in since `before`.
    """
    platform_state = next(
        (one for one in platform_states if (one.platform.name, one.arch) == (product.platform, product.arch)), None
    )
    if platform_state is None or platform_state.bulletin is None:
        return product
    bulletin, packages = platform_state.bulletin, _packages(product.published.packages)
    streams = streams_in_use(packages, bulletin.streams)
    missing = missing_fixes(packages, bulletin.advisories.given, streams=streams)
    product = replace(product, published=replace(product.published, missing=missing))
    previous = before.get(product.name)
    if product.run.outcome is Outcome.BUILT and previous is not None and previous.published.packages:
        given = bulletin.advisories.given
        fixes = fixes_taken(_packages(previous.published.packages), packages, given, streams=streams)
        product = replace(product, published=replace(product.published, fixes=fixes))
    return product


def _packages(sizes: Sequence[PackageSize]) -> list[ImagePackage]:
    return [ImagePackage.of(one.name, one.evr, one.arch, one.source) for one in sizes]
