"""Look up paths of traced processes in their tree, as the kernel does below a root.

Symlinks lead within the tree. /proc is the machine's, as far as it shows the traced processes themselves; the devices
that each container has are the machine's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox.traced.tracee import PATH_MOST, Tracee

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
"""Devices that processes see below /dev."""

HOST_NAME_FILE = "hostname"
"""File of the session's own /proc that is shown instead of the machine's name."""

_HOST_NAME = ["proc", "sys", "kernel", "hostname"]
_AT_FDCWD = -100
_LINKS = 40
"""Symlinks that are followed in one path: the kernel's own bound (path_resolution(7))."""

_GENERAL = frozenset({"cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "sys", "uptime", "version"})
"""Entries of /proc that tell nothing of other processes."""


def failure(number: int, path: str = "") -> OSError:
    """Make the error that a call ends with."""
    return OSError(number, os.strerror(number), path)


@dataclass(frozen=True, slots=True)
class Place:
    """The file or free name that a path leads to.

    `host` is its path for the kernel, with no symlink in it but the last name; `path` is the one in the image, without
    its first slash, and None for what is not part of the tree. `status` is that of what is there (of a symlink that is
    not followed, its own), None if there is nothing. `link` is a symlink's target if it is not the one on disk.
    """

    host: str
    path: str | None
    status: os.stat_result | None
    link: str | None = None

    def existing(self) -> os.stat_result:
        """Return the status; raise OSError ENOENT if there is nothing."""
        if self.status is None:
            raise failure(errno.ENOENT, self.host)
        return self.status

    def inside(self) -> str:
        """Return the path in the image; raise OSError EPERM for what is not part of the tree."""
        if self.path is None:
            raise failure(errno.EPERM, self.host)
        return self.path


def status_of(path: str) -> os.stat_result | None:
    """Return the status of what is at a path of the machine, a symlink's own."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _leads_to(path: str, status: os.stat_result) -> bool:
    """Return whether a file is still at the path that the kernel tells of it.

    Of a removed one it tells a path that ends with " (deleted)", and anything may be there.
    """
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False


@dataclass(slots=True)
class TreeLookup:
    """Look-ups in the tree at `root` (absolute, no symlinks) by the processes `tracees`."""

    root: str
    tracees: Mapping[int, Tracee]

    def find(self, tracee: Tracee, folder: int, name: str, *, follow: bool) -> Place:
        """Look up `name` from the directory of the descriptor `folder`, or AT_FDCWD.

        Raises OSError.
        """
        if not name:
            raise failure(errno.ENOENT)
        if len(name) >= PATH_MOST:
            raise failure(errno.ENAMETOOLONG)
        base = self._root(tracee) if name.startswith("/") else self._base(tracee, folder)
        return self._walk(tracee, base, name, follow=follow)

    def open_file(self, tracee: Tracee, descriptor: int) -> Place:
        """Return what an open descriptor names; its path is None if it was removed.

        Raises OSError EBADF.
        """
        magic = f"/proc/{tracee.pid}/fd/{descriptor}"
        try:
            status = os.stat(magic)
            named = os.readlink(magic)
        except OSError:
            raise failure(errno.EBADF) from None
        return Place(magic, self.below(named) if _leads_to(named, status) else None, status)

    def below(self, host: str) -> str | None:
        """Return the path in the image of a path of the machine, None if it is not in the tree."""
        if host == self.root:
            return ""
        return host[len(self.root) + 1 :] if host.startswith(f"{self.root}/") else None

    def working_directory(self, tracee: Tracee) -> str:
        """Return the path of its working directory, as it sees it. Raises OSError ENOENT."""
        place = os.readlink(f"/proc/{tracee.pid}/cwd")
        below = self.below(place)
        if below is None:
            return place
        if not os.path.isdir(place):
            raise failure(errno.ENOENT)
        inner = "/".join(tracee.root)
        return "/" + (below.removeprefix(inner).lstrip("/") if inner else below)

    def _base(self, tracee: Tracee, folder: int) -> list[str]:
        """Return the names of an open directory.

        Raises OSError ENOTDIR for anything else, also for an open symlink.
        """
        magic = f"/proc/{tracee.pid}/" + ("cwd" if folder == _AT_FDCWD else f"fd/{folder}")
        try:
            named, status = os.readlink(magic), os.stat(magic)
        except OSError:
            raise failure(errno.EBADF) from None
        below = self.below(named)
        if below is not None:
            if not stat.S_ISDIR(status.st_mode):
                raise failure(errno.ENOTDIR, named)
            if not _leads_to(named, status):
                raise failure(errno.ENOENT, named)
            return below.split("/") if below else []
        if named == "/proc" or named.startswith("/proc/"):
            return named.split("/")[1:]
        raise failure(errno.ENOTDIR if folder != _AT_FDCWD else errno.EACCES)

    def _root(self, tracee: Tracee) -> list[str]:
        """Return the names of its root directory.

        Raises OSError ENOENT if another process replaced it.
        """
        for end in range(1, len(tracee.root) + 1):
            status = status_of("/".join((self.root, *tracee.root[:end])))
            if status is None or not stat.S_ISDIR(status.st_mode):
                raise failure(errno.ENOENT)
        return list(tracee.root)

    def _walk(self, tracee: Tracee, base: list[str], name: str, *, follow: bool) -> Place:
        done = base
        ahead = [part for part in reversed(name.split("/")) if part not in ("", ".")]
        must_be_folder = name.endswith(("/", "/.")) or name == "."
        links = 0
        top = len(tracee.root)
        host = "/".join((self.root, *done))
        while True:
            if not top and done[:1] == ["proc"]:
                found = self._proc(tracee, done + ahead[::-1], follow=follow or must_be_folder)
                if isinstance(found, Place):
                    return found
                links += 1
                if links > _LINKS:
                    raise failure(errno.ELOOP)
                done, ahead = list(found[0]), found[1][::-1]
                host = "/".join((self.root, *done))
                continue
            if not ahead:
                break
            part = ahead.pop()
            if part == "..":
                if len(done) > top:
                    done.pop()
                    host = "/".join((self.root, *done))
                continue
            here = f"{host}/{part}"
            status = status_of(here)
            if status is None:
                if ahead:
                    raise failure(errno.ENOENT, here)
                return Place(here, "/".join((*done, part)), None)
            if stat.S_ISLNK(status.st_mode) and (ahead or follow or must_be_folder):
                links += 1
                if links > _LINKS:
                    raise failure(errno.ELOOP, here)
                target = os.readlink(here)
                if target.startswith("/"):
                    done = self._root(tracee)
                    host = "/".join((self.root, *done))
                if not ahead and target.endswith("/"):
                    must_be_folder = True
                ahead += [one for one in reversed(target.split("/")) if one not in ("", ".")]
                continue
            done.append(part)
            host = here
            if not ahead:
                if must_be_folder and not stat.S_ISDIR(status.st_mode):
                    raise failure(errno.ENOTDIR, here)
                if done[0] == "proc" and not top:
                    continue
                return self._device(done, host, status)
            if not stat.S_ISDIR(status.st_mode):
                raise failure(errno.ENOTDIR, here)
        status = os.lstat(host)
        if must_be_folder and not stat.S_ISDIR(status.st_mode):
            raise failure(errno.ENOTDIR, host)
        if stat.S_ISLNK(status.st_mode) and follow:  # An open symlink, by its entry in /proc.
            raise failure(errno.ELOOP, host)
        return Place(host, "/".join(done), status)

    def _device(self, done: list[str], host: str, status: os.stat_result) -> Place:
        if len(done) == 2 and done[0] == "dev" and done[1] in DEVICES:
            device = f"/dev/{done[1]}"
            return Place(device, None, os.stat(device))
        return Place(host, "/".join(done), status)

    def _proc(self, tracee: Tracee, names: list[str], *, follow: bool) -> Place | tuple[tuple[str, ...], list[str]]:
        """Look up a path below /proc; return a place, or a path of the tree and the names ahead."""
        place: list[str] = []
        for index, part in enumerate(names):
            if part == "..":
                place = place[:-1]
                if not place:
                    return (), names[index + 1 :]
                continue
            place.append(part)
            last = index == len(names) - 1
            if len(place) == 2 and part in ("self", "thread-self"):
                if last and not follow:
                    return Place(f"/proc/{part}", None, os.lstat(f"/proc/{part}"), str(tracee.pid))
                place[1] = str(tracee.pid)
            if len(place) == 2:
                self._require_shown(place[1])
            magic = self._magic(place)
            if magic is not None and (follow or not last):
                inside = self.below(magic) if magic.startswith("/") else None
                if inside is not None and place[-1] in ("root", "exe") and os.path.lexists(magic):
                    # Another process may have put symlinks there: it is looked up anew.
                    return (), [*filter(None, inside.split("/")), *names[index + 1 :]]
                status = os.stat("/" + "/".join(place))
                if inside is not None and _leads_to(magic, status):
                    if not last and not stat.S_ISDIR(status.st_mode):
                        raise failure(errno.ENOTDIR, magic)
                    return tuple(inside.split("/") if inside else ()), names[index + 1 :]
                if not last:
                    raise failure(errno.ENOENT)
                # A pipe, a socket, a device, a removed file: only the descriptor itself leads there.
                return Place("/" + "/".join(place), None, status)
            if magic is not None:
                inside = self.below(magic)
                shown = magic if inside is None else f"/{inside}"
                return Place("/" + "/".join(place), None, os.lstat("/" + "/".join(place)), shown)
        host = "/" + "/".join(place)
        if place == _HOST_NAME:
            host = f"{self.root}/proc/{HOST_NAME_FILE}"
        status = os.stat(host) if follow else os.lstat(host)
        return Place(host, None, status)

    def _require_shown(self, name: str) -> None:
        """Raise OSError ENOENT for an entry of /proc that shows other processes or the machine."""
        if name.isdigit():
            if int(name) not in self.tracees:
                raise failure(errno.ENOENT, f"/proc/{name}")
        elif name not in _GENERAL and name not in ("mounts", "net", "self", "thread-self"):
            raise failure(errno.ENOENT, f"/proc/{name}")

    def _magic(self, place: list[str]) -> str | None:
        """Return the path of the machine that a link of /proc leads to, None if it is no link."""
        if len(place) < 3 or not place[1].isdigit():
            return None
        tracee = self.tracees.get(int(place[1]))
        inner = place[4:] if place[2] == "task" and len(place) > 4 else place[2:]
        if inner == ["root"]:
            return "/".join((self.root, *(tracee.root if tracee else ())))
        if inner == ["exe"] and tracee is not None:
            return f"{self.root}/{tracee.program.lstrip('/')}"
        if inner == ["cwd"] or (len(inner) == 2 and inner[0] == "fd"):
            return os.readlink("/" + "/".join(place))
        return None
