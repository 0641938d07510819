"""The `licenses` smoke check: each package brings a licence file that is not empty."""

from __future__ import annotations

import fnmatch
import re
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    ShortForm,
    Subject,
    list_names,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key
from pipeline.model.value_comparison import readable

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import InstanceFiles, Probe
    from pipeline.model.smoke import Check

_FOLDERS = ("/usr/share/licenses", "/usr/share/doc")
_FILE_NAME = re.compile(r"(?i)(copying|copyright|licen[cs]e|notice|artistic|l?gpl|mit|bsd)")


@dataclass(frozen=True, slots=True)
class LicenseFacts(Subject):
    """Packages that must ship a licence file; if empty, all installed packages except `without`."""

    packages: tuple[str, ...] = document_key(
        ValueForm.PACKAGES, "names; default: all", (), example=["nginx"], optional=True
    )
    without: tuple[str, ...] = document_key(
        ValueForm.PACKAGES, "packages that have none, by name, `*` for any characters", (), example=["filesystem"]
    )


@dataclass(frozen=True, slots=True)
class LicensesAnswer(CheckAnswer):
    """The licence file of each checked package, by the package's name; "" if none was found.

    `known` False: the image has no RPM database, so its packages are unknown.
    """

    known: bool
    texts: tuple[tuple[str, str], ...] = ()


def _judge(check: Check, seen: LicensesAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(LicenseFacts, check)
    texts = dict(seen.texts)
    names = facts.packages or tuple(
        name for name in texts if not any(fnmatch.fnmatchcase(name, pattern) for pattern in facts.without)
    )
    if not seen.known and not facts.packages:
        return "the image has no RPM database; list the packages"
    if not names:
        return "'without' matches every package, so none is asked" if texts else "the image has no package"
    without = [name for name in names if not texts.get(name)]
    return f"no licence text found for {list_names(without)}" if without else ""


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    facts = subject_of(LicenseFacts, check)
    known = probe.installed()
    marked = {package.nevra.name: package.licenses for package in known or ()}
    names = facts.packages or tuple(dict.fromkeys(package.nevra.name for package in known or () if package.nevra.arch))
    texts = tuple((name, _license(name, marked.get(name, ()), probe.files)) for name in names)
    return Attempt(LicensesAnswer(known is not None, texts), settled=True)


def _license(name: str, marked: Sequence[str], files: InstanceFiles) -> str:
    """Return the path of a package's licence file that is not empty, "" if there is none."""
    for path in marked:
        if _is_nonempty_file(path, files):
            return readable(path)
    of_package = re.compile(rf"{re.escape(name)}(-\d.*)?")
    for folder in _FOLDERS:
        for inner in (inner for inner in files.names(folder) or () if of_package.fullmatch(inner)):
            for file in files.names(f"{folder}/{inner}") or ():
                if _FILE_NAME.match(file) and _is_nonempty_file(f"{folder}/{inner}/{file}", files):
                    return readable(f"{folder}/{inner}/{file}")
    return ""


def _is_nonempty_file(path: str, files: InstanceFiles) -> bool:
    status = files.status(path)
    return status is not None and stat.S_ISREG(status.mode) and status.size > 0


DECLARATION = CheckDeclaration(
    name="licenses",
    rank=120,
    meaning="`all`, a list of packages, or the mapping",
    example=["nginx"],
    form=LicenseFacts,
    title="licenses",
    prose="Packages that bring the text of their licence.\n\n"
    "In /usr/share/licenses or /usr/share/doc. `all`, or a list of packages, is short for this mapping.",
    short=ShortForm("all", "packages"),
    answer=LicensesAnswer,
    ask=_ask,
    judge=_judge,
)
