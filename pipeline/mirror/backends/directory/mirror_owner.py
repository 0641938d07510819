"""Owners of directory mirrors in folders that all users of a machine share, such as /tmp.

In such a folder everybody may write, and nobody removes others' files. What another user puts there, or the folder that
he makes there before the mirror is made, would decide under which name publishers sign, and by which rules.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.mirror.backends.directory.directory_address_form import MARKER

_ALL_USERS = ["0", "0", "4294967295"]
"""A user namespace's map in which no user is missing: user_namespaces(7)."""


def is_foreign(path: Path) -> bool:
    """Return whether another user put a file into a folder that all share, such as /tmp.

    That is neither this user, nor root, nor the owner of the folder.
    """
    with contextlib.suppress(FileNotFoundError):
        folder = path.parent.stat()
        return _is_shared(folder) and not _is_trusted(owner(path), folder)
    return False


def is_of_one_user(root: Path) -> bool:
    """Return whether blobs and repositories of a mirror belong to the owner of its marker.

    To that of the repositories where the marker is missing. Then one user alone made it, and it can be read: whoever
    reads has the key. Not in the folder that all share, but in what is in it, nobody else can put anything.
    """
    repositories = root / "repositories"
    names = (root / "blobs", root / MARKER if os.path.lexists(root / MARKER) else repositories)
    with contextlib.suppress(FileNotFoundError):
        return {owner(path) for path in names} == {owner(repositories)}
    return False


def owner(path: Path) -> int:
    """Return the user ID of a file's or link's owner."""
    return path.lstat().st_uid


def require_own(root: Path) -> None:
    """Refuse to publish to a mirror that another user made in a folder that all share.

    Or can exchange there. `root` need not exist. What root or the owner of the shared folder made counts as one's own:
    they can replace all that is in it. Raises UsageError `mirror-not-own`.
    """
    marker = root / MARKER
    planted = marker if os.path.lexists(marker) and is_foreign(marker) else _foreign_folder(root)
    if planted is not None:
        raise UsageError(
            "mirror-not-own",
            f"'{planted}' belongs to {_user(owner(planted))}, in a folder that all users share: what is written there "
            "would decide under which name is signed, and by which rules",
            place=f"dir:{root}",
            hint="publish to a folder that nobody else made; if it was made for you, have root `chown` it to the user "
            "who publishes",
        )


def passed_over(path: Path) -> Path | None:
    """Return the marker of another user that does not count, in a folder or one above it."""
    markers = (folder / MARKER for folder in (path, *path.parents))
    return next((one for one in markers if os.path.lexists(one) and is_foreign(one)), None)


def passed_over_text(marker: Path) -> str:
    """Say whose a marker is, and why it does not count."""
    return f"'{marker}' of {_user(owner(marker))} does not count in a folder that all users share"


def foreign_rules(path: Path) -> UsageError:
    """Make the error of a file of rules that does not count: the defaults would hold instead."""
    return UsageError(
        "rules-not-own",
        f"'{path}' belongs to {_user(owner(path))}, in a folder that all users share: whose rules hold is not known",
        place=str(path),
        hint="give the rules with --rules FILE; or have root remove that file, or `chown` it to root or to the user "
        "who runs relbuild",
    )


def _foreign_folder(root: Path) -> Path | None:
    """Return another user's folder or link on the way to `root`, in a folder that all share."""
    for path in dict.fromkeys((root, root.resolve())):
        for folder in (path, *path.parents[:-1]):
            if _is_foreign_folder(folder, path):
                return folder
    return None


def _is_foreign_folder(folder: Path, root: Path) -> bool:
    try:
        above, found, user = folder.parent.stat(), folder.lstat(), owner(folder)
    except OSError:  # missing
        return False
    # Where others can write, only root mounts: a folder that a container has of its machine may be of any user.
    if not _is_shared(above) or found.st_dev != above.st_dev or _is_trusted(user, above):
        return False
    # In a user namespace root's folders look like any other user's. One above the mirror is taken for root's where the
    # mirror is one's own: whoever owns it can move that away, and put there only another user's, which is refused.
    return not (_is_unmapped(user) and folder != root and (not os.path.lexists(root) or _is_mine(owner(root))))


def _is_shared(folder: os.stat_result) -> bool:
    return bool(folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH)


def _is_mine(user: int) -> bool:
    return user in {0, os.geteuid()}


def _is_trusted(user: int, folder: os.stat_result) -> bool:
    return _is_mine(user) or (user == folder.st_uid and not _is_unmapped(user))


def _is_unmapped(user: int) -> bool:
    """Return whether a user may be any that this user namespace lacks: they all look the same."""
    try:
        overflow = Path("/proc/sys/kernel/overflowuid").read_text()
        return user == int(overflow) and Path("/proc/self/uid_map").read_text().split() != _ALL_USERS
    except (OSError, ValueError):
        return False


def _user(user: int) -> str:
    import pwd  # only for errors

    if _is_unmapped(user):
        return f"uid {user}, which stands for all that this user namespace lacks"
    try:
        return f"uid {user} ({pwd.getpwuid(user).pw_name})"
    except KeyError:
        return f"uid {user}"
