"""Complete an image's passwd, group and shadow files by its account table, and compare them."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.model.accounts import AccountTable

_MAX_DIGITS = 10
"""Digits of the largest account number: uid_t has 32 bits."""


def is_number(text: str) -> bool:
    """Return whether a field is a number as the C library reads one.

    `str.isdigit` alone also accepts `²`, and any number of digits.
    """
    return len(text) <= _MAX_DIGITS and text.isascii() and text.isdigit()


def complete_passwd(text: str, table: AccountTable) -> str:
    """Return `/etc/passwd` with its lines unchanged, and one appended for every missing user."""
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
    """Return `/etc/group` with a line for every group, and with missing members added."""
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
    """Return `/etc/shadow` (9 fields) or `/etc/gshadow` (4) with a locked line for every name."""
    present = {line.split(":", 1)[0] for line in text.splitlines()}
    return _with_lines(text, (f"{name}:!{':' * (fields - 2)}" for name in names if name not in present))


def _with_lines(text: str, lines: Iterable[str]) -> str:
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return start + "".join(f"{line}\n" for line in lines)


def changed_numbers(before: AccountTable, passwd: str, group: str) -> tuple[str, ...]:
    """Return a sentence for each account whose number in the files differs from the table's."""
    found = []
    for kind, text, number_of in (("user", passwd, before.uid), ("group", group, before.gid)):
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) > 2 and is_number(fields[2]):
                expected = number_of(fields[0])
                if expected is not None and expected != int(fields[2]):
                    found.append(f"{kind} '{fields[0]}' has ID {fields[2]} instead of {expected}")
    return tuple(found)
