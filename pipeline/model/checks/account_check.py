"""Checks of the image's users and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.model.check_kind import CheckDeclaration, subject_of

if TYPE_CHECKING:
    from pipeline.model.image import ImageConfig
    from pipeline.model.smoke import Check


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """An entry of the image's /etc/passwd (`user`) or /etc/group (`group`)."""

    user: str = ""
    group: str = ""
    uid: int | None = None
    gid: int | None = None
    home: str | None = None
    shell: str | None = None
    groups: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True, slots=True)
class AccountAnswer:
    """The fields of the account's line, and the groups that name it as a member.

    `entry` None: there is no such line.
    """

    entry: tuple[str, ...] | None
    groups: tuple[str, ...] = ()


def _judge(check: Check, seen: AccountAnswer, config: ImageConfig, ready: Check | None) -> str:
    facts = subject_of(AccountFacts, check)
    what, name = ("user", facts.user) if facts.user else ("group", facts.group)
    if seen.entry is None:
        return "" if facts.absent else f"there is no {what} '{name}' in {'/etc/passwd' if facts.user else '/etc/group'}"
    entry = (*seen.entry, *("",) * 7)
    if facts.absent:
        return f"there is a {what} '{name}', with number {entry[2]}"
    if entry[0] != name:
        return f"what was recorded is the entry of '{entry[0]}', not of '{name}'"
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


DECLARATION = CheckDeclaration(AccountAnswer, _judge, subject=AccountFacts)
