"""Who a container runs as: `User` of an image config (image-spec, config.md) by the image's own accounts.

The rules are those of the Docker Engine and runc (`GetExecUser`): a user without a group gets the group of its
passwd entry and its supplementary groups; a user with a group gets that one only; a number need not be in
any file.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import SmokeError

ACCOUNTS_LIMIT = 4 << 20
"""Bytes of /etc/passwd or /etc/group that are read: far more than an image has."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers in the image, and what else a process of that user expects."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def resolve_user(text: str, passwd: str, group: str) -> Identity:
    """`[user][:group]`, each a name or a number, with the content of the image's passwd(5) and group(5).

    An empty text is root. Raises SmokeError `user-unknown` or `group-unknown`.
    """
    wanted, _, wanted_group = text.partition(":")
    wanted = wanted or "0"
    entries = [fields for line in passwd.splitlines() if len(fields := line.split(":")) >= 6]
    groups = [fields for line in group.splitlines() if len(fields := line.split(":")) >= 3]
    found = next((fields for fields in entries if fields[0] == wanted), None)
    if found is None and wanted.isdecimal():
        found = next((fields for fields in entries if fields[2] == wanted), None)
    if found is None and not wanted.isdecimal():
        raise SmokeError(
            "user-unknown",
            f"the image runs as '{wanted}', who is not in its /etc/passwd",
            hint="add the user under `accounts`, or say `user: <number>`",
        )
    identity = (
        Identity(int(found[2]), int(found[3]), (), found[5] or "/", found[0])
        if found is not None
        else Identity(int(wanted), 0)
    )
    if wanted_group:
        return Identity(identity.uid, _gid(wanted_group, groups), (), identity.home, identity.name)
    members = {
        int(fields[2])
        for fields in groups
        if len(fields) >= 4 and fields[2].isdecimal() and identity.name in fields[3].split(",")
    }
    supplementary = tuple(sorted(members - {identity.gid})) if identity.name else ()
    return Identity(identity.uid, identity.gid, supplementary, identity.home, identity.name)


def _gid(wanted: str, groups: list[list[str]]) -> int:
    for fields in groups:
        if fields[0] == wanted:
            return int(fields[2])
    if wanted.isdecimal():
        return int(wanted)
    raise SmokeError(
        "group-unknown",
        f"the image runs with group '{wanted}', which is not in its /etc/group",
        hint="add the group under `accounts`, or give its number",
    )
