"""Data class for an image's users and groups, with lookup of a number by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pipeline.lazy_dataclasses import dataclass
from pipeline.model.header import ScriptletPhase
from pipeline.model.recipe import Group, User


@dataclass(frozen=True, slots=True)
class AccountTable:
    """All users and groups of an image, sorted by number then name.

    `root` (0) is always in it. `members` are (group, user) pairs of supplementary membership.
    """

    users: tuple[User, ...]
    groups: tuple[Group, ...]
    members: tuple[tuple[str, str], ...] = ()

    def uid(self, name: str) -> int | None:
        """Return the number of a user, or None if there is none of this name."""
        return next((user.uid for user in self.users if user.name == name), None)

    def gid(self, name: str) -> int | None:
        """Return the number of a group, or None."""
        return next((group.gid for group in self.groups if group.name == name), None)

    def without(self, left_out: Collection[ScriptAccount]) -> AccountTable:
        """Return the table without some accounts, and without the memberships of their users."""
        users = {one.name for one in left_out if one.kind == "user"}
        groups = {one.name for one in left_out if one.kind == "group"}
        return replace(
            self,
            users=tuple(user for user in self.users if user.name not in users),
            groups=tuple(group for group in self.groups if group.name not in groups),
            members=tuple(pair for pair in self.members if pair[1] not in users),
        )


@dataclass(frozen=True, slots=True)
class ScriptAccount:
    """An account that a package's scriptlet makes with a number of its own.

    `kind` is `user` or `group`, `package` a NEVRA.
    """

    kind: str
    name: str
    package: str
    phase: ScriptletPhase


@dataclass(frozen=True, slots=True)
class NumberedAccounts:
    """All accounts of an image, before anything of it is made.

    `allocated` are the numbers that nothing states, for the lock to keep: (`user` or `group`, name, number). `scripted`
    are those of `table` that scriptlets make themselves.
    """

    table: AccountTable
    allocated: tuple[tuple[str, str, int], ...]
    scripted: tuple[ScriptAccount, ...] = ()
