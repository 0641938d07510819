"""The check of what packages unpack to, before a payload is opened."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import Problem, VerificationError
from pipeline.model.package import Package
from pipeline.model.payload_limits import PayloadLimits, exceeded_limit


def check_payload_sizes(sizes: Iterable[tuple[Package, int]], limits: PayloadLimits) -> None:
    """Refuse packages whose files have more bytes than the recipe and its platform allow.

    `sizes` are those in the metadata of repositories, before packages are fetched, or those in verified headers. What a
    header keeps silent about is refused when its payload is read. Raises VerificationError `payload-too-large`.
    """
    problems = [
        Problem(
            "payload-too-large",
            f"{package.nevra} unpacks to {size} bytes, {why}",
            place=f"{package.nevra} of repository '{package.repository}'",
            hint="if the package is meant to be like that, raise 'payload-limits: {size: …, ratio: …}' in the recipe "
            "or its platform; else leave it out with 'exclude'",
        )
        for package, size in sizes
        if (why := exceeded_limit(size, package.size, limits))
    ]
    if problems:
        raise VerificationError.of(problems)
