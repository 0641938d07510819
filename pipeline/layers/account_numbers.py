"""Assign numeric IDs to all accounts of an image, and write its passwd and group files.

RPM headers have owners' names, tar headers need numbers, which are assigned before any layer is made.

A number comes from, in this order: the parent image, the recipe's `accounts`, `user()` and `group()`
provides, sysusers.d and passwd and group files in payloads, the `useradd` and `groupadd` calls of scriptlets,
and the numbers kept in the lock. The state layer starts with this table, so a `%pre` finds its accounts,
except those for which a scriptlet requests a certain number: it makes these itself. It is an error if a scriptlet
gives an account another number.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from pipeline.errors import BuildError, Problem
from pipeline.layers.passwd_files import is_number
from pipeline.layers.script_accounts import AccountRequest, account_requests
from pipeline.lazy_dataclasses import dataclass
from pipeline.model.accounts import AccountTable, NumberedAccounts, ScriptAccount
from pipeline.model.header import PackageHeader
from pipeline.model.recipe import Group, User

_SYSTEM_HIGHEST = 999
"""System accounts get IDs downwards from here, as in shadow-utils (SYS_UID_MAX)."""

_ACCOUNT_FILES = re.compile(r"/(etc/(passwd|group)|usr/lib/sysusers\.d/[^/]+\.conf)")

NOLOGIN = "/sbin/nologin"

_PARENT = "the parent image"


def account_files(header: PackageHeader) -> tuple[str, ...]:
    """Return the files in a package that declare accounts, to be read from its payload."""
    return tuple(file.path for file in header.files if _ACCOUNT_FILES.fullmatch(file.path) and file.digest)


@dataclass(frozen=True, slots=True)
class _Declared:
    """An account as one source declares it; a number of None allows any.

    `source` is where the number comes from. `script` is the request of a scriptlet, if that is the first source with a
    number.
    """

    name: str
    number: int | None
    source: str
    group: str | int | None = None
    home: str = ""
    shell: str = ""
    comment: str = ""
    script: AccountRequest | None = None


@dataclass(slots=True)
class _Declarations:
    users: dict[str, _Declared] = field(default_factory=dict)
    groups: dict[str, _Declared] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    reserved: dict[str, set[int]] = field(default_factory=lambda: {"user": set(), "group": set()})
    """Numbers that scriptlets will use for accounts that own no file."""

    def user(self, wish: _Declared) -> None:
        _first(self.users, wish)

    def group(self, wish: _Declared) -> None:
        _first(self.groups, wish)


def _first(table: dict[str, _Declared], wish: _Declared) -> None:
    """Add a declaration: the first number wins; later sources only fill in missing values."""
    known = table.get(wish.name)
    if known is None:
        table[wish.name] = wish
        return
    numbered = known.number is not None or known.script is not None
    table[wish.name] = _Declared(
        wish.name,
        known.number if numbered else wish.number,
        known.source if numbered or (wish.number is None and wish.script is None) else wish.source,
        known.group if known.group is not None else wish.group,
        known.home or wish.home,
        known.shell or wish.shell,
        known.comment or wish.comment,
        known.script if numbered else wish.script,
    )


def number_accounts(
    headers: Sequence[PackageHeader],
    *,
    users: Sequence[User],
    groups: Sequence[Group],
    read: Callable[[PackageHeader, Sequence[str]], Mapping[str, bytes]],
    kept: Sequence[tuple[str, str, int]],
    parent: AccountTable | None = None,
) -> NumberedAccounts:
    """Return an image's account table, the numbers to lock, and the accounts left to scriptlets.

    `parent` is the parent image's account table: its numbers are kept, and `headers` are those of added packages.

    `users` and `groups` are the recipe's. `read` returns the content of the named files of a package. `kept` are
    the numbers in the previous lock: (`user` or `group`, name, number). The order of `headers` does not matter.
    Raises BuildError `account-number-taken` if two names claim one number and at least one of them is declared by the
    recipe or a scriptlet, `account-differs` if the recipe gives one of the parent's accounts another number.
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
    owners = {"user": {f.user for h in ordered for f in h.files}, "group": {f.group for h in ordered for f in h.files}}
    for header in ordered:
        for request in account_requests(header):
            _from_script(request, str(header.nevra), owners, wishes)
    for header in ordered:
        for file in header.files:
            if file.user not in wishes.users:
                wishes.user(_Declared(file.user, 0 if file.user == "root" else None, str(header.nevra)))
            if file.group not in wishes.groups:
                wishes.group(_Declared(file.group, 0 if file.group == "root" else None, str(header.nevra)))
    wishes.user(_Declared("root", 0, "always", 0, "/root", "/bin/bash", "root"))
    wishes.group(_Declared("root", 0, "always"))
    table, allocated = _build_table(wishes, kept)
    return NumberedAccounts(table, allocated, _made_by_scripts(wishes))


def _from_script(request: AccountRequest, source: str, owners: Mapping[str, set[str]], wishes: _Declarations) -> None:
    """Declare an account that a scriptlet requests, if it owns a file or is declared elsewhere.

    Of any other account, which the scriptlet makes itself, only the number is reserved.
    """
    known = wishes.users if request.kind == "user" else wishes.groups
    script = request if request.numbered else None
    own_group = request.kind == "user" and request.group is None and request.numbered
    if own_group and (request.name in owners["group"] or request.name in owners["user"]):
        wishes.group(_Declared(request.name, request.number, source, script=script))
    if request.name not in known and request.name not in owners[request.kind]:
        if request.number is not None:
            wishes.reserved[request.kind].add(request.number)
            wishes.reserved["group"].update([request.number] if own_group else ())
        return
    about = _Declared(
        request.name, request.number, source, request.group, request.home, request.shell, request.comment, script
    )
    if request.kind == "group":
        wishes.group(about)
    else:
        wishes.user(about)
        wishes.members.update((group, request.name) for group in request.groups)


def _made_by_scripts(wishes: _Declarations) -> tuple[ScriptAccount, ...]:
    """Return the accounts that scriptlets make themselves, as they request a certain number.

    `useradd` without a group also makes a group, and fails if that exists already: such a user is left out.
    """
    made = [
        ScriptAccount("group", name, wish.source, wish.script.phase)
        for name, wish in wishes.groups.items()
        if wish.script is not None
    ]
    groups = {one.name for one in made}
    made += [
        ScriptAccount("user", name, wish.source, wish.script.phase)
        for name, wish in wishes.users.items()
        if wish.script is not None and (wish.script.group is not None or name in groups)
    ]
    return tuple(sorted(made, key=lambda one: (one.kind, one.name)))


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
    """Return the accounts of an image after all its layers are made.

    They are those in its final `/etc/passwd` and `/etc/group` (None: unchanged since written from the table, or
    absent), then those of the table that are missing there.
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
        "group": _numbers(
            "group", wishes.groups, remembered, {}, reserved=wishes.reserved["group"], allocated=allocated
        ),
    }
    numbers["user"] = _numbers(
        "user", wishes.users, remembered, numbers["group"], reserved=wishes.reserved["user"], allocated=allocated
    )
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
    *,
    reserved: set[int],
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
        if other is not None and _disputed(wish, wishes[other]):
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
        if number is None or number in taken or number in reserved:
            number = next(free for free in range(_SYSTEM_HIGHEST, 0, -1) if free not in taken and free not in reserved)
        taken[number] = name
        numbers[name] = number
        allocated.append((kind, name, number))
    return numbers


def _disputed(wish: _Declared, other: _Declared) -> bool:
    """Return whether it is an error that two names have one number.

    It is one if the recipe gives the number to either name, or a scriptlet without `-o`; what packages' files declare
    is accepted.
    """
    if "recipe" in (wish.source, other.source):
        return True
    scripts = [one.script for one in (wish, other) if one.script is not None]
    return bool(scripts) and not any(script.shared for script in scripts)


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
            if len(fields) == 7 and is_number(fields[2]) and is_number(fields[3]):
                name, _, uid, gid, comment, home, shell = fields
                wishes.user(_Declared(name, int(uid), source, int(gid), home, shell, comment))
        elif path.endswith("/group"):
            fields = line.split(":")
            if len(fields) == 4 and is_number(fields[2]):
                wishes.group(_Declared(fields[0], int(fields[2]), source))
                wishes.members.update((fields[0], member) for member in fields[3].split(",") if member)
        else:
            _sysusers_line(line, source, wishes)


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
        uid = int(number) if is_number(number) else None
        stated: str | int | None = int(group) if is_number(group) else (group or None)
        wishes.user(_Declared(name, uid, source, stated, home, shell, comment))
        if stated is None:
            wishes.group(_Declared(name, uid, source))
    elif kind == "g":
        wishes.group(_Declared(name, int(identifier) if is_number(identifier) else None, source))
    elif kind == "m":
        wishes.user(_Declared(name, None, source))
        wishes.group(_Declared(identifier, None, source))
        wishes.members.add((identifier, name))
