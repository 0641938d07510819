"""Owners of directory mirrors in folders that all users of a machine share, such as /tmp.

In such a folder everybody may write, and nobody removes others' files. What another user puts there, or the folder that
he makes there before the mirror is made, would decide under which name publishers sign, and by which rules.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from pipeline.beneath.path_resolution import LINK_LIMIT, PATH_FLAGS
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
        return _is_shared(folder) and not _is_trusted(owner(path.lstat()), folder, path)
    return False


def is_of_one_user(root: Path) -> bool:
    """Return whether blobs and repositories of a mirror belong to the owner of its marker.

    To that of the repositories where the marker is missing. Then one user alone made it, and it can be read: whoever
    reads has the key. Not in the folder that all share, but in what is in it, nobody else can put anything.
    """
    repositories = root / "repositories"
    names = (root / "blobs", root / MARKER if os.path.lexists(root / MARKER) else repositories)
    with contextlib.suppress(FileNotFoundError):
        return {owner(path.lstat()) for path in names} == {owner(repositories.lstat())}
    return False


def owner(seen: os.stat_result) -> int:
    """Return the user ID of the owner of a file or link with this status."""
    return seen.st_uid


def require_own(root: Path) -> None:
    """Refuse to publish to a mirror that another user made in a folder that all share.

    Or can exchange there. `root` need not exist. What root or the owner of the shared folder made counts as one's own:
    they can replace all that is in it. Raises UsageError `mirror-not-own`.
    """
    marker = root / MARKER
    if os.path.lexists(marker) and is_foreign(marker):
        raise _not_own(root, marker, owner(marker.lstat()))
    with contextlib.suppress(OSError):  # missing
        os.close(open_own(root))


def require_own_marker(root: Path, folder: int, seen: os.stat_result) -> None:
    """Refuse a marker as `require_own` does, by the folder's descriptor and the marker's status."""
    above, user = os.fstat(folder), owner(seen)
    if _is_shared(above) and not _is_trusted(user, above, root / MARKER):
        raise _not_own(root, root / MARKER, user)


def open_own(root: Path) -> int:
    """Open a mirror's folder as `require_own` demands it; the caller closes the descriptor.

    Each folder and link on the way is looked at as it was opened: who exchanges one meanwhile gains nothing, and no
    other user can do it later. Raises UsageError `mirror-not-own`; OSError for a missing folder and a loop of links.
    """
    waiting = list(reversed(root.absolute().parts[1:]))
    way = [(os.open("/", PATH_FLAGS | os.O_DIRECTORY), Path("/"))]
    unknown: tuple[Path, int] | None = None
    links = 0
    try:
        while waiting:
            part, (above, shown) = waiting.pop(), way[-1]
            if part == "..":
                if len(way) > 1:
                    os.close(way.pop()[0])
                continue
            path, handle = shown / part, _open_part(part, above)
            way.append((handle, path))
            seen = os.fstat(handle)
            user = owner(seen)
            if _is_foreign_part(above, handle, user):
                # In a user namespace root's folders look like any other user's. One above the mirror is taken for
                # root's where the mirror is one's own: whoever owns it can move that away, and put there only another
                # user's, which is refused.
                if not waiting or not _is_unmapped(user):
                    raise _not_own(root, path, user)
                unknown = unknown or (path, user)
            if stat.S_ISLNK(seen.st_mode):
                links += 1
                if links > LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root))
                target = os.readlink("", dir_fd=handle)
                for _ in range(len(way) - 1 if target.startswith("/") else 1):
                    os.close(way.pop()[0])
                waiting += [one for one in reversed(target.split("/")) if one not in ("", ".")]
            elif not stat.S_ISDIR(seen.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        handle, path = way[-1]
        if unknown is not None and not _is_mine(owner(os.fstat(handle)), _opened(handle)):
            raise _not_own(root, *unknown)
        del way[-1]
        return handle
    finally:
        for handle, _ in way:
            os.close(handle)


def _open_part(part: str, above: int) -> int:
    """Open a folder or link below an open folder; what an automounter has there is mounted."""
    try:
        return os.open(part, PATH_FLAGS | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=above)
    except NotADirectoryError:
        return os.open(part, PATH_FLAGS | os.O_NOFOLLOW, dir_fd=above)


def _not_own(root: Path, planted: Path, user: int) -> UsageError:
    return UsageError(
        "mirror-not-own",
        f"'{planted}' belongs to {_user(user)}, in a folder that all users share: what is written there "
        "would decide under which name is signed, and by which rules",
        place=f"dir:{root}",
        # No `chown`: it would make another user's marker and rules count.
        hint="publish to a folder that nobody else made; if the mirror is that user's, publish as him; if it is to be "
        "yours, have root move it away and make an empty folder there for you",
    )


def passed_over(path: Path) -> Path | None:
    """Return the marker of another user that does not count, in a folder or one above it."""
    markers = (folder / MARKER for folder in (path, *path.parents))
    return next((one for one in markers if os.path.lexists(one) and is_foreign(one)), None)


def passed_over_text(marker: Path) -> str:
    """Say whose a marker is, and why it does not count."""
    return f"'{marker}' of {_user(owner(marker.lstat()))} does not count in a folder that all users share"


def has_own_rules(path: Path, marker: Path | None) -> bool:
    """Return whether a file of rules is there; refuse another user's in a folder that all share.

    It is looked at once: nobody else exchanges what is one's own there. `marker`: its owner's rules count as well.
    Raises UsageError `rules-not-own`, since the defaults would hold instead.
    """
    try:
        seen, folder = path.lstat(), path.parent.stat()
        known = owner(marker.lstat()) if marker is not None else None
    except FileNotFoundError:
        return False
    user = owner(seen)
    if _is_shared(folder) and not _is_trusted(user, folder, path) and user != known:
        raise UsageError(
            "rules-not-own",
            f"'{path}' belongs to {_user(user)}, in a folder that all users share: whose rules hold is not known",
            place=str(path),
            hint="give the rules with --rules FILE; or have root remove that file, and write the one that is to hold",
        )
    return path.is_file()


def _is_foreign_part(above: int, part: int, user: int) -> bool:
    """Return whether another user's folder or link is in one that all share, by descriptors."""
    folder = os.fstat(above)
    return _is_shared(folder) and not _is_trusted(user, folder, _opened(part)) and not _is_mounted(above, part)


def _is_mounted(above: int, part: int) -> bool:
    """Return whether something is mounted on a folder: as root did, whose ever it is.

    Not by the number of the device: anybody may make a subvolume of btrfs, and an overlay's files have several.
    """
    mounts = (_mount(above), _mount(part))
    return stat.S_ISDIR(os.fstat(part).st_mode) and None not in mounts and mounts[0] != mounts[1]


def _mount(handle: int) -> str | None:
    """Return the number of an open file's mount (proc_pid_fdinfo(5)); None without /proc."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines()
        return next((line for line in lines if line.startswith("mnt_id:")), None)
    return None


def _is_shared(folder: os.stat_result) -> bool:
    return bool(folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH)


def _is_mine(user: int, path: Path) -> bool:
    return user == 0 or (user == os.geteuid() and (not _is_unmapped(user) or _owns(path)))


def _owns(path: Path) -> bool:
    """Return whether this user owns a file: the kernel lets no other open it with O_NOATIME."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC))
        return True
    return False


def _is_trusted(user: int, folder: os.stat_result, path: Path) -> bool:
    return _is_mine(user, path) or (user == folder.st_uid and not _is_unmapped(user))


def _opened(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}")


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
