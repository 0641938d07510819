"""The `account` smoke check: an entry of the image's /etc/passwd or /etc/group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.account_files import account_entries
from pipeline.model.check_kind import (
    Attempt,
    CheckAnswer,
    CheckDeclaration,
    Contradiction,
    Subject,
    subject_of,
)
from pipeline.model.document_keys import ValueForm, document_key

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.probe import Probe
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class AccountFacts(Subject):
    """An entry of the image's /etc/passwd (`user`) or /etc/group (`group`)."""

    user: str = document_key(ValueForm.LINE, "a user's name", "", example="mysql")
    group: str = document_key(ValueForm.LINE, "a group's name", "")
    uid: int | None = document_key(ValueForm.NUMBER, "the user's number", None, example=27)
    gid: int | None = document_key(ValueForm.NUMBER, "the (user's) group's number", None)
    home: str | None = document_key(ValueForm.PATH, "the home directory", None)
    shell: str | None = document_key(ValueForm.PATH, "the login shell", None)
    groups: tuple[str, ...] = document_key(ValueForm.VERBATIM_LINES, "other groups that the user is in", ())
    absent: bool = document_key(ValueForm.SWITCH, "there is no such account", default=False)


@dataclass(frozen=True, slots=True)
class AccountAnswer(CheckAnswer):
    """The fields of the account's line, and the groups that name it as a member.

    `entry` None: there is no such line.
    """

    entry: tuple[str, ...] | None
    groups: tuple[str, ...] = ()


def _judge(check: Check, seen: AccountAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(AccountFacts, check)
    what, name = ("user", facts.user) if facts.user else ("group", facts.group)
    if seen.entry is None:
        return "" if facts.absent else f"no {what} '{name}' in {'/etc/passwd' if facts.user else '/etc/group'}"
    entry = (*seen.entry, *("",) * 7)
    if facts.absent:
        return f"{what} '{name}' exists, with ID {entry[2]}"
    if entry[0] != name:
        return f"the recorded entry is the one of '{entry[0]}', not of '{name}'"
    asked: tuple[tuple[str, int | str | None, str], ...] = (("gid", facts.gid, entry[2]),)
    if facts.user:
        asked = (
            ("uid", facts.uid, entry[2]),
            ("gid", facts.gid, entry[3]),
            ("home", facts.home, entry[5]),
            ("shell", facts.shell, entry[6]),
        )
    for key, wanted, has in asked:
        if wanted is not None and str(wanted) != has:
            return f"{what} '{name}' has {key} {has}, not {wanted}"
    missing = [group for group in facts.groups if group not in seen.groups]
    return f"user '{name}' is not in {', '.join(missing)}" if missing else ""


def _refuse(facts: AccountFacts, given: frozenset[str]) -> Iterator[Contradiction]:
    if ("user" in given) == ("group" in given):
        yield Contradiction(
            "check-contradiction", "an account must have one of 'user' and 'group'", "write one of them"
        )
    if facts.absent and given - {"user", "group", "absent"}:
        message = f"'{facts.user or facts.group}' has 'absent' together with other conditions"
        yield Contradiction("check-contradiction", message, "remove 'absent', or the other conditions")
    elif "group" in given:
        for name in ("uid", "home", "shell", "groups"):
            if name in given:
                yield Contradiction("check-key-misplaced", f"'{name}' is not applicable to a group", "remove it", name)


def _ask(check: Check, probe: Probe, deadline: float) -> Attempt:
    facts = subject_of(AccountFacts, check)
    table, name = ("/etc/passwd", facts.user) if facts.user else ("/etc/group", facts.group)
    entry = next((fields for fields in account_entries(probe.files, table) if fields[0] == name), None)
    if entry is None:
        return Attempt(AccountAnswer(None))
    member_of = {
        fields[0]
        for fields in account_entries(probe.files, "/etc/group")
        if len(fields) > 3 and name in fields[3].split(",")
    }
    return Attempt(AccountAnswer(tuple(entry), tuple(group for group in facts.groups if group in member_of)))


DECLARATION = CheckDeclaration(
    name="account",
    rank=90,
    meaning="an account",
    example={"user": "mysql", "uid": 27},
    form=AccountFacts,
    title="account check",
    prose="An account of the image: one of `user`, `group`.",
    refuse=_refuse,
    answer=AccountAnswer,
    ask=_ask,
    judge=_judge,
)
