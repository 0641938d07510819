"""Checks of the texts of licences in the image."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, list_names, subject_of

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class LicenseFacts:
    """Packages that must bring the text of their licence.

    Empty: all that the image has, but those in `without`.
    """

    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LicensesAnswer:
    """The licence file of each package that was looked at, by the package's name.

    "": none was found. `known` False: the image has no RPM database that would say which packages there are.
    """

    known: bool
    texts: tuple[tuple[str, str], ...] = ()


def _judge(check: Check, seen: LicensesAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(LicenseFacts, check)
    texts = dict(seen.texts)
    names = facts.packages or tuple(
        name for name in texts if not any(fnmatch.fnmatchcase(name, pattern) for pattern in facts.without)
    )
    if not names or (not seen.known and not facts.packages):
        return "the image has no RPM database, so name the packages"
    without = [name for name in names if not texts.get(name)]
    return f"there is no text of a licence of {list_names(without)}" if without else ""


DECLARATION = CheckDeclaration(LicensesAnswer, _judge, subject=LicenseFacts)
