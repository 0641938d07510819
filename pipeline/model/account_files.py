"""Parser of an image's /etc/passwd and /etc/group, for smoke checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.model.probe import InstanceFiles

ACCOUNTS_LIMIT = 4 << 20
"""Bytes of /etc/passwd or /etc/group that are read: far more than an image has."""

_ID = re.compile(r"[0-9]{1,10}")
"""A user's or group's ID; a longer number is none (uid_t has 32 bits)."""

_NAMES_MOST = 12
"""Names of one ID that are recorded, the one that was asked for first."""


def account_entries(files: InstanceFiles, table: str) -> Iterator[list[str]]:
    """Yield the fields of each line of `table` (/etc/passwd or /etc/group) that is an account."""
    text = (files.read(table, limit=ACCOUNTS_LIMIT) or b"").decode(errors="replace")
    # Lines as the C library has them: other separators belong to a field.
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= (6 if table == "/etc/passwd" else 3) and _ID.fullmatch(fields[2]):
            yield fields


def names_of_id(number: int, asked: str | None, files: InstanceFiles, table: str) -> tuple[str, ...]:
    """Return the names of a user's or group's ID; empty if `asked` is None.

    A name has the ID of its first entry; the name `asked` comes first.
    """
    if asked is None:
        return ()
    first: dict[str, int] = {}
    for fields in account_entries(files, table):
        first.setdefault(fields[0], int(fields[2]))
    names = sorted((name for name, known in first.items() if known == number), key=lambda name: name != asked)
    return tuple(names[:_NAMES_MOST])


def account_names(files: InstanceFiles, table: str) -> Mapping[int, str]:
    """Map IDs to their names in /etc/passwd or /etc/group, but for names of unusual characters."""
    text = (files.read(table, limit=1 << 20) or b"").decode(errors="replace")
    lines = [line.split(":") for line in text.split("\n")]
    return {
        int(fields[2]): fields[0]
        for fields in reversed(lines)
        if len(fields) > 2 and _ID.fullmatch(fields[2]) and re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", fields[0])
    }
