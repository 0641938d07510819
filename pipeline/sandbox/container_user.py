"""Resolution of an image's `User` to numeric IDs by its passwd and group (config.md).

The rules are those of the Docker Engine and runc (`GetExecUser`): a user without a group gets the group of its
passwd entry and its supplementary groups; a user with a group gets that one only; a number need not be in
any file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from pipeline.errors import SmokeError
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.idmap import IDS

_NUMBER = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric IDs in the image, and home and name of the user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def resolve_user(text: str, passwd: str, group: str) -> Identity:
    """Resolve `[user][:group]`, each a name or a number, to ids.

    `passwd` and `group` are the content of the image's passwd(5) and group(5).

    An empty text is root. Raises SmokeError `user-unknown` or `group-unknown`.
    """
    wanted, _, wanted_group = text.partition(":")
    identity = _user(wanted or "0", passwd)
    groups = list(_entries(group, numbers=(2,), least=3))
    if wanted_group:
        identity = replace(identity, gid=_gid(wanted_group, groups))
    elif identity.name:
        members = {int(fields[2]) for fields in groups if len(fields) > 3 and identity.name in fields[3].split(",")}
        identity = replace(identity, groups=tuple(sorted(members - {identity.gid})))
    for number in (identity.uid, identity.gid, *identity.groups):
        if number >= IDS:
            raise SmokeError(
                "user-out-of-range",
                f"the image's user '{text}' has ID {number}; containers have IDs up to {IDS - 1}",
                hint="give the account a smaller ID",
            )
    return identity


def _user(wanted: str, passwd: str) -> Identity:
    entries = list(_entries(passwd, numbers=(2, 3), least=6))
    found = next((fields for fields in entries if fields[0] == wanted), None)
    if found is None and _NUMBER.fullmatch(wanted):
        found = next((fields for fields in entries if int(fields[2]) == int(wanted)), None)
        if found is None:
            return Identity(int(wanted), 0)
    if found is None:
        raise SmokeError(
            "user-unknown",
            f"the image's user '{wanted}' is not in its /etc/passwd",
            hint="add the user under 'accounts', or write its ID",
        )
    return Identity(int(found[2]), int(found[3]), (), found[5] or "/", found[0])


def _entries(text: str, *, numbers: tuple[int, ...], least: int) -> Iterator[list[str]]:
    """Return the lines of passwd(5) or group(5) that are accounts, split into fields.

    These are lines with at least `least` fields whose fields `numbers` are numbers; others are no accounts.
    """
    # Lines as the C library has them: other separators belong to a field.
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= least and all(_NUMBER.fullmatch(fields[index]) for index in numbers):
            yield fields


def _gid(wanted: str, groups: list[list[str]]) -> int:
    for fields in groups:
        if fields[0] == wanted:
            return int(fields[2])
    if _NUMBER.fullmatch(wanted):
        return int(wanted)
    raise SmokeError(
        "group-unknown",
        f"the image's group '{wanted}' is not in its /etc/group",
        hint="add the group under 'accounts', or write its ID",
    )
