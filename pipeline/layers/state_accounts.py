"""Write an image's account files before its scriptlets run, and check them afterwards.

Before the first scriptlet, the account files get the whole table, except the accounts for which a scriptlet requests a
certain number (`useradd -u 48`): the scriptlet makes these itself, as it would under rpm, with home, shell and comment.
Those that it was expected to make and did not are added once it has ended, so that later scriptlets find the owners of
files.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import BuildError
from pipeline.layers.passwd_files import changed_numbers, complete_group, complete_passwd, complete_shadow, is_number
from pipeline.layers.transaction import ScriptStep
from pipeline.model.accounts import AccountTable, ScriptAccount
from pipeline.model.tree import Tree
from pipeline.sandbox import CommandSession

_ACCOUNT_FILE_LIMIT = 4 << 20
"""Maximum bytes of each account file: thousands of accounts."""

_USERADD_PATHS = ("usr/sbin/useradd", "usr/bin/useradd")


def scripted_accounts(scripted: tuple[ScriptAccount, ...], tree: Tree) -> tuple[ScriptAccount, ...]:
    """Return the accounts that scriptlets make themselves: none in an image without `useradd`."""
    return scripted if any(tree.get(path) for path in _USERADD_PATHS) else ()


def still_expected(expected: tuple[ScriptAccount, ...], step: ScriptStep) -> tuple[ScriptAccount, ...]:
    """Return the expected accounts that scriptlets after `step` make."""
    return tuple(one for one in expected if (one.package, one.phase) != (step.package, step.kind))


def write_accounts(session: CommandSession, accounts: AccountTable, build_time: int) -> None:
    """Add the accounts of a table that the image's files do not have yet."""
    users = [user.name for user in accounts.users]
    groups = [group.name for group in accounts.groups]
    files: tuple[tuple[str, int, Callable[[str], str], bool], ...] = (
        ("etc/passwd", 0o644, lambda text: complete_passwd(text, accounts), True),
        ("etc/group", 0o644, lambda text: complete_group(text, accounts), True),
        ("etc/shadow", 0o000, lambda text: complete_shadow(text, users, fields=9), False),
        ("etc/gshadow", 0o000, lambda text: complete_shadow(text, groups, fields=4), False),
    )
    for path, mode, complete, required in files:
        before = session.files.read(path, limit=_ACCOUNT_FILE_LIMIT)
        if before is None and not required:
            continue
        text = (before or b"").decode(errors="surrogateescape")
        after = complete(text)
        if after != text:
            found = session.files.stat(path)
            if session.files.stat("etc") is None:
                session.files.make_directory("etc")
            session.files.write_file(
                path,
                after.encode(errors="surrogateescape"),
                mode=found.st_mode & 0o7777 if found else mode,
                uid=found.st_uid - session.shift if found else 0,
                gid=found.st_gid - session.shift if found else 0,
                mtime=build_time,
            )


def other_numbers(session: CommandSession, table: AccountTable) -> tuple[str, ...]:
    """Return a sentence for each account whose number in the image's files is not the table's."""
    return changed_numbers(table, *_account_texts(session))


def _account_texts(session: CommandSession) -> tuple[str, str]:
    """Return the image's /etc/passwd and /etc/group, empty if there is none."""
    passwd, group = (
        (session.files.read(path, limit=_ACCOUNT_FILE_LIMIT) or b"").decode(errors="replace")
        for path in ("etc/passwd", "etc/group")
    )
    return passwd, group


def check_accounts(
    session: CommandSession, before: AccountTable, others: tuple[str, ...] = ()
) -> dict[tuple[str, str], int]:
    """Return the final numbers, with those that scriptlets added.

    They are (`user` or `group`, name) → number. `others` are the `other_numbers` before all scriptlets. Raises
    BuildError `scriptlet-renumbers` if a scriptlet changed a number of the table `before`, `account-differs` if a
    package's own file has another one.
    """
    passwd, group = _account_texts(session)
    wrong = changed_numbers(before, passwd, group)
    if wrong and set(wrong) <= set(others):
        raise BuildError(
            "account-differs",
            "packages bring accounts with other IDs than the recipe's: " + "; ".join(wrong),
            hint="remove them from 'accounts:', or give them these IDs",
        )
    if wrong:
        raise BuildError(
            "scriptlet-renumbers",
            "scriptlets changed the IDs of accounts: " + "; ".join(wrong),
            hint="set the IDs under 'accounts:' in the recipe",
        )
    numbers: dict[tuple[str, str], int] = {}
    for kind, text in (("user", passwd), ("group", group)):
        for line in text.splitlines():
            fields = line.split(":")
            if len(fields) > 2 and is_number(fields[2]):
                numbers[kind, fields[0]] = int(fields[2])
    return numbers
