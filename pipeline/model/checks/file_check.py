"""The `file` smoke check: type, mode, owner, size or content of a path in the instance."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.account_files import account_names, names_of_id
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    DraftedCheck,
    Drafting,
    Subject,
    printable,
    subject_of,
)
from pipeline.model.document_keys import Choice, ValueForm, document_key
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
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check

FILE_LIMIT = 64 << 20
"""Maximum bytes of a file whose content is checked."""

_DRAFTED_MOST = 12
"""Files of a volume that are drafted: a person looks at each."""


_SHOWN_CHARACTERS = 500
"""Characters of a file that are shown."""


class FileSort(StrEnum):
    """Types of files."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    SOCKET = "socket"
    FIFO = "fifo"
    DEVICE = "device"


_SORTS: Mapping[FileSort, Callable[[int], bool]] = {
    FileSort.FILE: stat.S_ISREG,
    FileSort.DIRECTORY: stat.S_ISDIR,
    FileSort.SYMLINK: stat.S_ISLNK,
    FileSort.SOCKET: stat.S_ISSOCK,
    FileSort.FIFO: stat.S_ISFIFO,
    FileSort.DEVICE: lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


@dataclass(frozen=True, slots=True)
class FileFacts(Subject):
    """The file that is expected at `path` in the running instance.

    Links are followed unless `sort` is SYMLINK, `target` is asked, or the file must be absent. `sha256` is 64 hex
    digits; `owner` and `group` are names of the image's accounts, or numbers; None: any.
    """

    path: str = document_key(ValueForm.PATH, "where", example="/var/lib/mysql/ibdata1")
    absent: bool = document_key(ValueForm.SWITCH, "nothing may stand there, and no symbolic link either", default=False)
    sort: FileSort | None = document_key(
        Choice(FileSort, "a sort of file"),
        "`file`, `directory`, `symlink`, `socket`, `fifo` or `device`",
        None,
        written="type",
    )
    mode: int | None = document_key(ValueForm.MODE, "permissions", None, example="0750")
    owner: str | None = document_key(ValueForm.OWNER, "user, by name or number", None, example="mysql")
    group: str | None = document_key(ValueForm.OWNER, "group, by name or number", None)
    size: Rules = document_key(ValueForm.RULES, "bytes", (), example={"min": "1MiB"})
    sha256: str = document_key(ValueForm.SHA256, "sha256 of its content", "")
    text: Rules = document_key(ValueForm.RULES, "its content", (), example="^port=3306$")
    target: Rules = document_key(ValueForm.EXACT_RULES, "what a symbolic link points to", ())


@dataclass(frozen=True, slots=True)
class FileAnswer(CheckAnswer):
    """The file that was found at a path.

    `sort` None: something that has no name here. `owners` and `groups` are names that the image has for `uid` and
    `gid`. `target`: where a symlink points, if that was asked; `sha256` (64 hex digits) and `text` likewise, and empty
    or None if it is not a regular file.
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
        return "" if facts.absent else f"'{facts.path}' does not exist"
    if facts.absent:
        return f"'{facts.path}' exists, as {_type_text(seen)}"
    wrong = _attributes(facts, seen)
    if not wrong and facts.target:
        wrong = (
            "it is not a symlink"
            if seen.target is None
            else recorded_mismatch(facts.target, seen.target, "its target", tell=True)
        )
    if not wrong and (facts.text or facts.sha256):
        wrong = _content(facts, seen)
    return f"{facts.path}: {wrong}" if wrong else ""


def _attributes(facts: FileFacts, seen: FileAnswer) -> str:
    if facts.sort is not None and seen.sort is not facts.sort:
        return f"it is {_type_text(seen)}, not a {facts.sort}"
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
        return "it is not a regular file"
    if facts.sha256 and seen.sha256 != facts.sha256:
        return f"its sha256 is {seen.sha256}, not {facts.sha256}"
    wrong = recorded_mismatch(facts.text, seen.text, "its text")
    return f"{wrong}; content: {quote_answer(seen.text.text[:8000], _SHOWN_CHARACTERS)}" if wrong else ""


def _type_text(seen: FileAnswer) -> str:
    return f"a {seen.sort}" if seen.sort is not None else "something else"


def _record(check: Check, seen: FileAnswer) -> FileAnswer:
    facts = subject_of(FileFacts, check)
    return seen if seen.text is None else replace(seen, text=record_text(facts.text, seen.text))


def _refuse(facts: FileFacts, given: frozenset[str]) -> Iterator[Contradiction]:
    if facts.absent and facts != FileFacts(facts.path, absent=True):
        message = f"'{facts.path}' has 'absent' together with other conditions"
        yield Contradiction("check-contradiction", message, "remove 'absent', or the other conditions")
    elif facts.target and facts.sort not in (None, FileSort.SYMLINK):
        yield Contradiction("check-contradiction", "only a symlink has a target", "remove 'type' or 'target'")


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    facts = subject_of(FileFacts, check)
    with probe.root() as root:
        itself = facts.absent or facts.sort is FileSort.SYMLINK or bool(facts.target)
        status = root.status(facts.path, follow=not itself)
        if status is None:
            return Attempt(FileAnswer(there=False))
        data = root.read(facts.path, limit=FILE_LIMIT) if facts.text or facts.sha256 else None
        target = root.link(facts.path) if facts.target else None
        answer = FileAnswer(
            there=True,
            sort=_sort_of(status.mode),
            mode=stat.S_IMODE(status.mode),
            uid=status.uid,
            gid=status.gid,
            owners=names_of_id(status.uid, facts.owner, root, "/etc/passwd"),
            groups=names_of_id(status.gid, facts.group, root, "/etc/group"),
            size=status.size,
            target=RecordedText.of(target) if target is not None else None,
            sha256=hashlib.sha256(data).hexdigest() if data is not None else "",
            text=RecordedText.of(data if facts.text else b"") if data is not None else None,
        )
    return Attempt(answer)


def _sort_of(mode: int) -> FileSort | None:
    return next((sort for sort, test in _SORTS.items() if test(mode)), None)


def _draft(probe: Probe) -> Iterator[DraftedCheck]:
    owners, groups = account_names(probe.files, "/etc/passwd"), account_names(probe.files, "/etc/group")
    with probe.root() as root:
        for volume in probe.image.config.volumes:
            found = root.names(volume)
            if found is None:
                continue
            names = [name for name in found if printable(name)][:_DRAFTED_MOST]
            for path in (volume, *(f"{volume.rstrip('/')}/{name}" for name in names)):
                status = root.status(path, follow=False)
                if status is None:
                    continue
                facts: DraftedCheck = {"path": path, "type": str(_sort_of(status.mode) or FileSort.DEVICE)}
                if not stat.S_ISLNK(status.mode):
                    facts["mode"] = f"{stat.S_IMODE(status.mode):04o}"
                    facts["owner"] = owners.get(status.uid, str(status.uid))
                    facts["group"] = groups.get(status.gid, str(status.gid))
                yield {"name": f"has {path}", "file": facts}


DECLARATION = CheckDeclaration(
    name="file",
    rank=60,
    meaning="a file",
    example={"path": "/run/app.pid", "owner": "app"},
    form=FileFacts,
    title="file check",
    prose="A path in the running instance.\n\nIts volumes and scratch file systems are included.",
    refuse=_refuse,
    ready_meaning="a file that must be there",
    answer=FileAnswer,
    ask=_ask,
    judge=_judge,
    record=_record,
    draft=Drafting(4, _draft),
)
