"""Checks of the image's packages."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, subject_of

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


PACKAGES_MOST = 10_000
"""Packages that are recorded: three times a full desktop."""


@dataclass(frozen=True, slots=True)
class PackageFacts:
    """Names of packages, or NEVRAs, with `*` for any characters."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackagesAnswer:
    """NEVRAs that the image's RPM database has, or else its build says.

    `known` False: there is neither.
    """

    known: bool
    packages: tuple[str, ...] = ()


def _judge(check: Check, seen: PackagesAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(PackageFacts, check)
    if not seen.known:
        return "the image has no RPM database, and does not say what it is made of"
    wrong = [
        f"{pattern} is not there"
        for pattern in facts.present
        if not any(package_is(nevra, pattern) for nevra in seen.packages)
    ]
    for pattern in facts.absent:
        there = [nevra for nevra in sorted(seen.packages) if package_is(nevra, pattern)]
        wrong += [f"{', '.join(there)} is there"] if there else []
    return "; ".join(wrong)


def package_is(nevra: str, pattern: str) -> bool:
    """Return whether a pattern of names or NEVRAs matches the package.

    `*` in the pattern stands for any characters.
    """
    name = re.sub(r"-[^-]+-[^-]+$", "", nevra)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(nevra, pattern)


DECLARATION = CheckDeclaration(PackagesAnswer, _judge, subject=PackageFacts)
