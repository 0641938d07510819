"""Checks of a path in the running instance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, subject_of
from pipeline.model.value_comparison import (
    RecordedText,
    mismatch,
    quote_answer,
    record_text,
    recorded_mismatch,
)
from pipeline.model.value_rules import Rules

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


_LAST_WORDS = 500
"""Characters of a file that are shown."""


class FileSort(StrEnum):
    """Types of files."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    SOCKET = "socket"
    FIFO = "fifo"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The file that is expected at `path` in the running instance.

    Links are followed unless `sort` is SYMLINK. `sha256` is 64 hex digits; `owner` and `group` are names of the image's
    accounts, or numbers; None: any.
    """

    path: str
    absent: bool = False
    sort: FileSort | None = None
    mode: int | None = None
    owner: str | None = None
    group: str | None = None
    size: Rules = ()
    sha256: str = ""
    text: Rules = ()
    target: Rules = ()


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """The file that was found at a path.

    `sort` None: something that has no name here. `owners` and `groups` are names that the image has for `uid` and
    `gid`. `target`: where a symlink points, if that was asked; `sha256` (64 hex digits) and `text` likewise, and empty
    or None if it is no regular file.
    """

    there: bool
    sort: FileSort | None = None
    mode: int = 0
    uid: int = 0
    gid: int = 0
    owners: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    size: int = 0
    target: RecordedText | None = None
    sha256: str = ""
    text: RecordedText | None = None


def _judge(check: Check, seen: FileAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(FileFacts, check)
    if not seen.there:
        return "" if facts.absent else f"{facts.path} is not there"
    if facts.absent:
        return f"{facts.path} is there, as {_sort(seen)}"
    wrong = _attributes(facts, seen)
    if not wrong and facts.target:
        wrong = (
            "it is no symlink"
            if seen.target is None
            else recorded_mismatch(facts.target, seen.target, "its target", tell=True)
        )
    if not wrong and (facts.text or facts.sha256):
        wrong = _content(facts, seen)
    return f"{facts.path}: {wrong}" if wrong else ""


def _attributes(facts: FileFacts, seen: FileAnswer) -> str:
    if facts.sort is not None and seen.sort is not facts.sort:
        return f"it is {_sort(seen)}, not a {facts.sort}"
    if facts.mode is not None and seen.mode != facts.mode:
        return f"its mode is {seen.mode:04o}, not {facts.mode:04o}"
    for what, wanted, number, names in (
        ("owner", facts.owner, seen.uid, seen.owners),
        ("group", facts.group, seen.gid, seen.groups),
    ):
        if wanted is not None and (int(wanted) != number if wanted.isdecimal() else wanted not in names):
            return f"its {what} is {number}{f' ({names[0]})' if names else ''}, not {wanted}"
    return mismatch(facts.size, str(seen.size), "its size")


def _content(facts: FileFacts, seen: FileAnswer) -> str:
    if seen.text is None:
        return "it is no regular file"
    if facts.sha256 and seen.sha256 != facts.sha256:
        return f"its sha256 is {seen.sha256}, not {facts.sha256}"
    wrong = recorded_mismatch(facts.text, seen.text, "its text")
    return f"{wrong}; it reads: {quote_answer(seen.text.text[:8000], _LAST_WORDS)}" if wrong else ""


def _sort(seen: FileAnswer) -> str:
    return f"a {seen.sort}" if seen.sort is not None else "something else"


def _record(check: Check, seen: FileAnswer) -> FileAnswer:
    facts = subject_of(FileFacts, check)
    return seen if seen.text is None else replace(seen, text=record_text(facts.text, seen.text))


DECLARATION = CheckDeclaration(FileAnswer, _judge, subject=FileFacts, record=_record)
