"""Data class for an image's users and groups, with lookup of a number by name."""

from __future__ import annotations

from dataclasses import dataclass

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
        """The number of a user, or None if there is none of this name."""
        return next((user.uid for user in self.users if user.name == name), None)

    def gid(self, name: str) -> int | None:
        """The number of a group, or None."""
        return next((group.gid for group in self.groups if group.name == name), None)
