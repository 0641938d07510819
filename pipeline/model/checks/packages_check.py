"""The `packages` smoke check: packages that must or must not be installed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    DraftedCheck,
    Drafting,
    Subject,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


PACKAGES_MOST = 10_000
"""Packages that are recorded: three times a full desktop."""

_NEVRA = re.compile(r"(.+)-(?:([0-9]+):)?([^-:]+)-([^-]+)\.([^.-]*)", re.DOTALL)
"""Of an imported key, which is in the RPM database as a package, the architecture is empty."""

PATTERN_FORMS = (
    "a name, name.arch, name-version, name-version-release or a NEVRA, the last three with or without the epoch "
    "(`1:`); `*` stands for any characters"
)
"""The forms of a pattern of packages, for people."""


@dataclass(frozen=True, slots=True)
class PackageFacts(Subject):
    """Patterns of packages, as in `package_is`."""

    present: tuple[str, ...] = document_key(ValueForm.PACKAGES, "must be there", (), example=["mysql-server"])
    absent: tuple[str, ...] = document_key(ValueForm.PACKAGES, "must not be there", (), example=["gcc", "*-devel"])


@dataclass(frozen=True, slots=True)
class PackagesAnswer(CheckAnswer):
    """NEVRAs in the image's RPM database, or if it has none, in the layers' contents.

    `known` False: there is neither.
    """

    known: bool
    packages: tuple[str, ...] = ()


def _judge(check: Check, seen: PackagesAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(PackageFacts, check)
    if not seen.known:
        return "the image's packages are unknown: it has no RPM database"
    wrong = [
        f"no package matches '{pattern}'"
        for pattern in facts.present
        if not any(package_is(nevra, pattern) for nevra in seen.packages)
    ]
    for pattern in facts.absent:
        there = [nevra for nevra in sorted(seen.packages) if package_is(nevra, pattern)]
        wrong += [f"must be absent, but installed: {', '.join(there)}"] if there else []
    return "; ".join(wrong)


def package_is(nevra: str, pattern: str) -> bool:
    """Return whether a pattern matches one of the forms in which a package is written.

    They are those of dnf (HY_FORMS_MOST_SPEC): name, name.arch, name-version, name-version-release and NEVRA, the last
    three with the epoch (also `0:`) or without. `*` in the pattern stands for any characters.
    """
    return any(fnmatch.fnmatchcase(form, pattern) for form in package_forms(nevra))


def package_forms(nevra: str) -> Iterator[str]:
    """Yield the forms in which a package may be written; the text alone if it is no NEVRA."""
    found = _NEVRA.fullmatch(nevra)
    if found is None:
        yield nevra
        return
    name, epoch, version, release, arch = found.groups()
    yield name
    yield f"{name}.{arch}"
    for shown in ("", f"{epoch or 0}:"):
        yield f"{name}-{shown}{version}"
        yield f"{name}-{shown}{version}-{release}"
        yield f"{name}-{shown}{version}-{release}.{arch}"


def _refuse(facts: PackageFacts, given: frozenset[str]) -> Iterator[Contradiction]:
    if not facts.present and not facts.absent:
        yield Contradiction("check-empty", "no package is listed", "write present or absent")


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    facts = subject_of(PackageFacts, check)
    known = probe.installed()
    if known is not None:
        nevras = [str(package.nevra) for package in known]
    else:
        nevras = sorted({nevra for layer in probe.image.layers for nevra in layer.contents})
    if len(nevras) > PACKAGES_MOST:
        wanted = (*facts.present, *facts.absent)
        nevras = [nevra for nevra in nevras if any(package_is(nevra, pattern) for pattern in wanted)][:PACKAGES_MOST]
    return Attempt(PackagesAnswer(known is not None or bool(nevras), tuple(nevras)), settled=True)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    known = probe.installed()
    if known:
        absent = ["gcc", "make", "*-devel", "telnet*"]
        names = {package.nevra.name for package in known}
        yield {
            "name": "holds no tools to build with",
            "packages": {"absent": [name for name in absent if name not in names]},
        }


DECLARATION = CheckDeclaration(
    name="packages",
    rank=100,
    meaning="packages",
    example={"present": ["nginx"], "absent": ["gcc"]},
    form=PackageFacts,
    title="packages",
    prose=f"The packages of the image.\n\nEach is {PATTERN_FORMS}.",
    refuse=_refuse,
    answer=PackagesAnswer,
    ask=_ask,
    judge=_judge,
    draft=Drafting(7, _draft),
)
