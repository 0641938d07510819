"""Assign numeric IDs to all accounts of an image, and write its passwd and group files.

RPM headers have owners' names, tar headers need numbers, which are assigned before any layer is made.

A number comes from, in this order: the parent image, the recipe's `accounts`, `user()` and `group()`
provides, sysusers.d and passwd and group files in payloads, else one that is kept in the lock. The state
layer starts with this table, so a `%pre` finds its accounts; a scriptlet that ends with another number is an
error.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import BuildError, Problem
from pipeline.model.accounts import AccountTable
from pipeline.model.header import PackageHeader
from pipeline.model.recipe import Group, User

_SYSTEM_HIGHEST = 999
"""System accounts get IDs downwards from here, as in shadow-utils (SYS_UID_MAX)."""

_ACCOUNT_FILES = re.compile(r"/(etc/(passwd|group)|usr/lib/sysusers\.d/[^/]+\.conf)")

_DIGITS = 10
"""Digits of the largest ID: uid_t has 32 bits."""

NOLOGIN = "/sbin/nologin"

_PARENT = "the parent image"


def account_files(header: PackageHeader) -> tuple[str, ...]:
    """Return the files in a package that declare accounts, to be read from its payload."""
    return tuple(file.path for file in header.files if _ACCOUNT_FILES.fullmatch(file.path) and file.digest)


@dataclass(frozen=True, slots=True)
class _Declared:
    """An account as one source declares it; `number` None: any."""

    name: str
    number: int | None
    source: str
    group: str | int | None = None
    home: str = ""
    shell: str = ""
    comment: str = ""


@dataclass(slots=True)
class _Declarations:
    users: dict[str, _Declared] = field(default_factory=dict)
    groups: dict[str, _Declared] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)

    def user(self, wish: _Declared) -> None:
        _first(self.users, wish)

    def group(self, wish: _Declared) -> None:
        _first(self.groups, wish)


def _first(table: dict[str, _Declared], wish: _Declared) -> None:
    """Add a declaration: the first number wins; later sources only fill in missing values."""
    known = table.get(wish.name)
    if known is None:
        table[wish.name] = wish
    else:
        table[wish.name] = _Declared(
            wish.name,
            known.number if known.number is not None else wish.number,
            known.source,
            known.group if known.group is not None else wish.group,
            known.home or wish.home,
            known.shell or wish.shell,
            known.comment or wish.comment,
        )


def number_accounts(
    headers: Sequence[PackageHeader],
    *,
    users: Sequence[User],
    groups: Sequence[Group],
    read: Callable[[PackageHeader, Sequence[str]], Mapping[str, bytes]],
    kept: Sequence[tuple[str, str, int]],
    parent: AccountTable | None = None,
) -> tuple[AccountTable, tuple[tuple[str, str, int], ...]]:
    """Return the account table of an image, and the allocated numbers that the lock must keep.

    `parent` is that of the parent image: its numbers are kept, and `headers` are those of added packages.

    `users` and `groups` are the recipe's. `read` returns the content of files of a package by path. `kept` are the
    allocated numbers in the lock: (`user` or `group`, name, number). The order of `headers` does not matter.
    Raises BuildError `account-number-taken` if two names claim one number, `account-differs` if the recipe gives one
    of the parent's accounts another number.
    """
    wishes = _Declarations()
    if parent is not None:
        _from_parent(parent, users, groups, wishes)
    for group in groups:
        wishes.group(_Declared(group.name, group.gid, "recipe"))
    for user in users:
        gid = user.gid if user.gid is not None else user.uid
        named = next((group.name for group in groups if group.gid == gid), user.name)
        wishes.group(_Declared(named, gid, "recipe"))
        wishes.user(_Declared(user.name, user.uid, "recipe", gid, user.home, user.shell, user.comment))
    ordered = sorted(headers, key=lambda header: str(header.nevra))
    for header in ordered:
        for provide in header.provides:
            _from_provide(provide.name, provide.evr, str(header.nevra), wishes)
    for header in ordered:
        paths = account_files(header)
        for path, content in sorted(read(header, paths).items()) if paths else ():
            _from_file(path, content.decode(errors="replace"), str(header.nevra), wishes)
    for header in ordered:
        for file in header.files:
            if file.user not in wishes.users:
                wishes.user(_Declared(file.user, 0 if file.user == "root" else None, str(header.nevra)))
            if file.group not in wishes.groups:
                wishes.group(_Declared(file.group, 0 if file.group == "root" else None, str(header.nevra)))
    wishes.user(_Declared("root", 0, "always", 0, "/root", "/bin/bash", "root"))
    wishes.group(_Declared("root", 0, "always"))
    return _build_table(wishes, kept)


def _from_parent(parent: AccountTable, users: Sequence[User], groups: Sequence[Group], wishes: _Declarations) -> None:
    """Declare the parent image's accounts, whose numbers are fixed, because its files have them."""
    for group in parent.groups:
        wishes.group(_Declared(group.name, group.gid, _PARENT))
    for user in parent.users:
        wishes.user(_Declared(user.name, user.uid, _PARENT, user.gid, user.home, user.shell, user.comment))
    wishes.members.update(parent.members)
    wanted = [("user", user.name, user.uid, parent.uid(user.name)) for user in users]
    gids = {user.name: user.gid for user in parent.users}
    stated = [(user.name, user.gid) for user in users if user.gid is not None]
    wanted += [("group of the user", name, gid, gids.get(name)) for name, gid in stated]
    wanted += [("group", group.name, group.gid, parent.gid(group.name)) for group in groups]
    problems = [
        Problem(
            "account-differs",
            f"{kind} '{name}' has ID {number} in the recipe, but {has} in the parent image",
            hint="remove it from 'accounts:', or rebuild the parent with that ID",
        )
        for kind, name, number, has in wanted
        if has is not None and has != number
    ]
    if problems:
        raise BuildError.of(problems)


def final_accounts(table: AccountTable, passwd: str | None, group: str | None) -> AccountTable:
    """Return the accounts of an image whose layers are made.

    They are those in its final `/etc/passwd` and `/etc/group` (None: as they were written from the table, or there is
    none), then those of the table that are not there.
    """
    wishes = _Declarations()
    for path, text in (("/etc/group", group), ("/etc/passwd", passwd)):
        _from_file(path, text or "", _PARENT, wishes)
    for one in table.groups:
        wishes.group(_Declared(one.name, one.gid, _PARENT))
    for user in table.users:
        wishes.user(_Declared(user.name, user.uid, _PARENT, user.gid, user.home, user.shell, user.comment))
    wishes.members.update(table.members)
    return _build_table(wishes, ())[0]


def _build_table(
    wishes: _Declarations, kept: Sequence[tuple[str, str, int]]
) -> tuple[AccountTable, tuple[tuple[str, str, int], ...]]:
    remembered = {(kind, name): number for kind, name, number in kept}
    for name, wish in list(wishes.users.items()):
        # An account without a group of its own name and without a stated group gets one, as useradd -r does.
        if wish.group is None and name not in wishes.groups:
            wishes.group(_Declared(name, wish.number, wish.source))
        elif isinstance(wish.group, str) and wish.group not in wishes.groups:
            wishes.group(_Declared(wish.group, None, wish.source))
    allocated: list[tuple[str, str, int]] = []
    numbers = {
        "group": _numbers("group", wishes.groups, remembered, {}, allocated),
    }
    numbers["user"] = _numbers("user", wishes.users, remembered, numbers["group"], allocated)
    by_gid = {number: name for name, number in numbers["group"].items()}
    users = []
    for name, wish in wishes.users.items():
        uid = numbers["user"][name]
        if isinstance(wish.group, int):
            gid = wish.group
        else:
            gid = numbers["group"][wish.group if wish.group is not None else name]
        if gid not in by_gid:
            by_gid[gid] = name if name not in numbers["group"] else f"{name}-group"
            numbers["group"][by_gid[gid]] = gid
        users.append(User(name, uid, gid, wish.home or "/", wish.shell or NOLOGIN, wish.comment))
    table = AccountTable(
        tuple(sorted(users, key=lambda user: (user.uid, user.name))),
        tuple(sorted((Group(name, gid) for name, gid in numbers["group"].items()), key=lambda g: (g.gid, g.name))),
        tuple(sorted(wishes.members)),
    )
    return table, tuple(sorted(allocated))


def _numbers(
    kind: str,
    wishes: Mapping[str, _Declared],
    remembered: Mapping[tuple[str, str], int],
    preferred: Mapping[str, int],
    allocated: list[tuple[str, str, int]],
) -> dict[str, int]:
    """Return a number for every name; raise for two names with one number, with both sources."""
    numbers: dict[str, int] = {}
    taken: dict[int, str] = {}
    problems = []
    for name, wish in sorted(wishes.items()):
        if wish.number is None:
            continue
        other = taken.get(wish.number)
        if other is not None and "recipe" in (wish.source, wishes[other].source):
            problems.append(
                Problem(
                    "account-number-taken",
                    f"the {kind}s '{other}' ({wishes[other].source}) and '{name}' ({wish.source}) both request "
                    f"ID {wish.number}",
                    hint=f"give one of them another ID under 'accounts: {kind}s:' in the recipe",
                )
            )
        taken.setdefault(wish.number, name)
        numbers[name] = wish.number
    if problems:
        raise BuildError.of(problems)
    unnumbered = sorted(name for name, wish in wishes.items() if wish.number is None)
    # Formerly allocated numbers first, so that a new name never gets an old name's number.
    for name in sorted(unnumbered, key=lambda name: ((kind, name) not in remembered, name)):
        number = remembered.get((kind, name), preferred.get(name))
        if number is None or number in taken:
            number = next(free for free in range(_SYSTEM_HIGHEST, 0, -1) if free not in taken)
        taken[number] = name
        numbers[name] = number
        allocated.append((kind, name, number))
    return numbers


def _from_provide(name: str, encoded: str, source: str, wishes: _Declarations) -> None:
    """Read an account from a `user(NAME)` or `group(NAME)` provide.

    rpm ≥ 4.19 puts the sysusers line there in base64.
    """
    found = re.fullmatch(r"(user|group)\((.+)\)", name)
    if not found:
        return
    kind, account = found.groups()
    line = ""
    if encoded:
        try:
            line = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            line = ""
    if line:
        _sysusers_line(line.strip("\0\n"), source, wishes)
    elif kind == "user":
        wishes.user(_Declared(account, None, source))
    else:
        wishes.group(_Declared(account, None, source))


def _from_file(path: str, text: str, source: str, wishes: _Declarations) -> None:
    for line in text.splitlines():
        if path.endswith("/passwd"):
            fields = line.split(":")
            if len(fields) == 7 and _is_number(fields[2]) and _is_number(fields[3]):
                name, _, uid, gid, comment, home, shell = fields
                wishes.user(_Declared(name, int(uid), source, int(gid), home, shell, comment))
        elif path.endswith("/group"):
            fields = line.split(":")
            if len(fields) == 4 and _is_number(fields[2]):
                wishes.group(_Declared(fields[0], int(fields[2]), source))
                wishes.members.update((fields[0], member) for member in fields[3].split(",") if member)
        else:
            _sysusers_line(line, source, wishes)


def _is_number(text: str) -> bool:
    """Return whether a field is a number as the C library parses it.

    `str.isdigit` accepts `²` and any number of digits.
    """
    return len(text) <= _DIGITS and text.isascii() and text.isdigit()


def _sysusers_line(line: str, source: str, wishes: _Declarations) -> None:
    """Read one line of sysusers.d(5).

    The forms are `u name id[:group] "comment" home shell`, `g name id`, and `m user group`.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return
    if len(words) < 2:
        return
    words += ["-"] * (6 - len(words))
    kind, name, identifier, comment, home, shell = (("" if word == "-" else word) for word in words[:6])
    if kind.rstrip("!") == "u":
        number, _, group = identifier.partition(":")
        uid = int(number) if _is_number(number) else None
        stated: str | int | None = int(group) if _is_number(group) else (group or None)
        wishes.user(_Declared(name, uid, source, stated, home, shell, comment))
        if stated is None:
            wishes.group(_Declared(name, uid, source))
    elif kind == "g":
        wishes.group(_Declared(name, int(identifier) if _is_number(identifier) else None, source))
    elif kind == "m":
        wishes.user(_Declared(name, None, source))
        wishes.group(_Declared(identifier, None, source))
        wishes.members.add((identifier, name))


# --- the table as files ------------------------------------------------------------------------


def complete_passwd(text: str, table: AccountTable) -> str:
    """Return `/etc/passwd` with a line for every user.

    Existing lines are kept, missing ones appended.
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

    Members that an existing line lacks are added to it.
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
    """Return `/etc/shadow` (9 fields) or `/etc/gshadow` (4) with a locked line for every name."""
    present = {line.split(":", 1)[0] for line in text.splitlines()}
    return _with_lines(text, (f"{name}:!{':' * (fields - 2)}" for name in names if name not in present))


def _with_lines(text: str, lines: Iterable[str]) -> str:
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return start + "".join(f"{line}\n" for line in lines)


def changed_numbers(before: AccountTable, passwd: str, group: str) -> tuple[str, ...]:
    """Describe accounts whose number in the files differs from the table's, after a scriptlet."""
    found = []
    for kind, text, number_of in (("user", passwd, before.uid), ("group", group, before.gid)):
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) > 2 and _is_number(fields[2]):
                expected = number_of(fields[0])
                if expected is not None and expected != int(fields[2]):
                    found.append(f"{kind} '{fields[0]}' has ID {fields[2]} instead of {expected}")
    return tuple(found)
