"""The account table as the files of an image: /etc/passwd, /etc/group and their shadows."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.model.accounts import AccountTable

_DIGITS = 10
"""Of the largest number of an account: uid_t has 32 bits."""


def is_number(text: str) -> bool:
    """Tell whether a field is a number as the C library reads one.

    `str.isdigit` takes `²` and digits without end.
    """
    return len(text) <= _DIGITS and text.isascii() and text.isdigit()


def complete_passwd(text: str, table: AccountTable) -> str:
    """Return `/etc/passwd` with a line for every user.

    The lines that are there stay, the missing ones follow.
    """
    names = {line.split(":", 1)[0] for line in text.splitlines()}
    return _with_lines(
        text,
        (
            f"{user.name}:x:{user.uid}:{user.gid}:{user.comment}:{user.home}:{user.shell}"
            for user in table.users
            if user.name not in names
        ),
    )


def complete_group(text: str, table: AccountTable) -> str:
    """Return `/etc/group` with a line for every group.

    Members that are missing in a line are added to it.
    """
    members: dict[str, list[str]] = {}
    for group, user in table.members:
        members.setdefault(group, []).append(user)
    names = set()
    lines = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 4:
            names.add(fields[0])
            present = [name for name in fields[3].split(",") if name]
            fields[3] = ",".join([*present, *(m for m in members.get(fields[0], []) if m not in present)])
        lines.append(":".join(fields))
    return _with_lines(
        "".join(f"{line}\n" for line in lines),
        (
            f"{group.name}:x:{group.gid}:{','.join(members.get(group.name, []))}"
            for group in table.groups
            if group.name not in names
        ),
    )


def complete_shadow(text: str, names: Iterable[str], *, fields: int) -> str:
    """`/etc/shadow` (9 fields) or `/etc/gshadow` (4) with a locked line for every name."""
    present = {line.split(":", 1)[0] for line in text.splitlines()}
    return _with_lines(text, (f"{name}:!{':' * (fields - 2)}" for name in names if name not in present))


def _with_lines(text: str, lines: Iterable[str]) -> str:
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return start + "".join(f"{line}\n" for line in lines)


def changed_numbers(before: AccountTable, passwd: str, group: str) -> tuple[str, ...]:
    """Sentences about accounts that a scriptlet gave another number than the table's."""
    found = []
    for kind, text, number_of in (("user", passwd, before.uid), ("group", group, before.gid)):
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) > 2 and is_number(fields[2]):
                expected = number_of(fields[0])
                if expected is not None and expected != int(fields[2]):
                    found.append(f"{kind} '{fields[0]}' has ID {fields[2]} instead of {expected}")
    return tuple(found)
