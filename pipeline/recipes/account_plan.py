"""Plan a recipe's users and groups, and report duplicate names and numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.model.recipe import Group, User
from pipeline.recipes.problems import Problems
from pipeline.recipes.recipe_lookup import RecipeFile
from pipeline.yaml_documents import DocumentPath


def plan_accounts(sources: Sequence[RecipeFile], problems: Problems) -> tuple[tuple[User, ...], tuple[Group, ...]]:
    """Plan the users and groups of all `sources`, in order.

    One of an entry replaces those of its name below it. Problem: `account-duplicate`, `account-reserved`,
    `account-malformed`.
    """
    signed_tag = _Ledger(problems)
    users: list[User] = []
    groups: list[Group] = []
    replaced = _replaced(sources)
    for number, source in enumerate(sources):
        for index, group in enumerate(source.recipe.accounts.groups):
            if replaced.get(("group", group.name), number) > number:
                continue
            path: DocumentPath = ("accounts", "groups", index)
            signed_tag.enter("group", group.name, group.gid, source, path)
            groups.append(Group(group.name, group.gid))
    for number, source in enumerate(sources):
        for index, user in enumerate(source.recipe.accounts.users):
            if replaced.get(("user", user.name), number) > number:
                continue
            path = ("accounts", "users", index)
            entered = signed_tag.enter("user", user.name, user.uid, source, path)
            if entered and user.gid is None:
                signed_tag.enter("group", user.name, user.uid, source, path)
            for key in ("home", "shell", "comment"):
                _refuse_separators(key, getattr(user, key), source, (*path, key), problems)
            users.append(User(user.name, user.uid, user.gid, user.home, user.shell, user.comment))
    return tuple(users), tuple(groups)


def _refuse_separators(key: str, text: str, source: RecipeFile, path: DocumentPath, problems: Problems) -> None:
    """Refuse what would make another line, or other fields, of the user's line in `/etc/passwd`."""
    if ":" in text or text.splitlines() not in ([], [text]):
        message = f"'{key}' has a ':' or a line end, which separate the fields and lines of /etc/passwd"
        hint = "write it on one line, without ':'"
        problems.add("account-malformed", message, source.document, path, hint)


def _replaced(sources: Sequence[RecipeFile]) -> dict[tuple[str, str], int]:
    """Return the index of the uppermost entry that has an account, by its kind and name."""
    found: dict[tuple[str, str], int] = {}
    for number, source in enumerate(sources):
        if source.entry is not None:
            found |= {("user", one.name): number for one in source.recipe.accounts.users}
            found |= {("group", one.name): number for one in source.recipe.accounts.groups}
    return found


class _Ledger:
    """Names and numbers in use, each with its account and its place in a document."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._names: dict[tuple[str, str], tuple[int, str]] = {}
        self._numbers: dict[tuple[str, int], tuple[str, str]] = {}

    def enter(self, kind: str, name: str, number: int, source: RecipeFile, path: DocumentPath) -> bool:
        """Add an account; return False after adding a problem if its name or number is taken."""
        key = "uid" if path[1] == "users" else "gid"
        here = source.document.place(path)
        if name == "root":
            self._problems.add(
                "account-reserved",
                f"the {kind} 'root' is predefined with ID 0",
                source.document,
                (*path, "name"),
                "remove it",
            )
            return False
        known = self._names.get((kind, name))
        if known is not None and kind == "group" and key == "uid" and known[0] == number:
            return True  # the user's own group is also listed
        if known is not None:
            self._problems.add(
                "account-duplicate",
                f"duplicate {kind} '{name}', first defined with ID {known[0]} at {known[1]}",
                source.document,
                (*path, "name"),
                "remove one of them",
            )
            return False
        self._names[kind, name] = (number, here)
        holder = self._numbers.get((kind, number))
        if holder is not None:
            self._problems.add(
                "account-duplicate",
                f"{kind} ID {number} is already used by '{holder[0]}' at {holder[1]}",
                source.document,
                (*path, key),
                "choose another ID" + ("" if kind == "user" else ", or give the user's 'gid'"),
            )
            return False
        self._numbers[kind, number] = (name, here)
        return True
