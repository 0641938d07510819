"""The tree that becomes a package: what the debs bring, and what is put over it."""

from __future__ import annotations

import base64
import fnmatch
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from deb import Member, unpack


@dataclass(slots=True)
class Payload:
    """A folder on disk and the list of its entries that a package will have.

    ``members`` are by canonical path; ``conffiles`` are the paths that become ``%config``. Parents
    that no entry names exist on disk but belong to another package.
    """

    root: Path
    members: dict[str, Member] = field(default_factory=dict)
    conffiles: set[str] = field(default_factory=set)

    def add_deb(self, deb: Path, drop: tuple[str, ...], elsewhere: frozenset[str]) -> None:
        """Unpack ``deb`` without what matches ``drop``; paths ``elsewhere`` are not listed."""

        def keep(path: str) -> bool:
            return not any(fnmatch.fnmatchcase(path, pattern) for pattern in drop)

        for member in unpack(deb, self.root, keep):
            if member.path not in elsewhere:
                self.members.setdefault(member.path, member)

    def newest(self) -> int:
        """Return the newest modification time, in seconds since 1970."""
        return max((member.mtime for member in self.members.values()), default=0)

    def drop_dangling_documentation(self) -> None:
        """Remove doc folders that are symlinks into a package which does not exist here."""
        for path, member in list(self.members.items()):
            if path.startswith("/usr/share/doc/") and member.kind == "symlink":
                file = self._place(path)
                if not file.exists():
                    file.unlink()
                    del self.members[path]

    def add_overlay(self, overlay: Path, time: int) -> None:
        """Copy the files below ``overlay`` over the tree; those in /etc become configuration."""
        for source in sorted(overlay.rglob("*")):
            if source.is_file():
                path = "/" + source.relative_to(overlay).as_posix()
                target = self._fresh(path)
                shutil.copyfile(source, target)
                self._list(path, 0o755 if source.stat().st_mode & 0o100 else 0o644, time)

    def add_symlink(self, path: str, target: str, time: int) -> None:
        """Make a symlink."""
        link = self._fresh(path)
        link.symlink_to(target)
        os.utime(link, (time, time), follow_symlinks=False)
        self.members[path] = Member(path, "symlink", 0o777, "root", "root", time)

    def add_ghost(self, path: str, time: int) -> None:
        """Make an empty file, so that the header has ``time`` for a ghost and not the clock's."""
        ghost = self._fresh(path)
        ghost.touch()
        os.utime(ghost, (time, time))

    def settle_directories(self, more: Iterable[str], time: int) -> None:
        """Make the directories ``more`` with ``time``, and give the debs' directories their own.

        To be called last: adding an entry changes its directory's time, which goes into the header.
        """
        for path in more:
            self._place(path).mkdir(parents=True, exist_ok=True)
        for path, member in self.members.items():
            if member.kind == "directory":
                os.utime(self._place(path), (member.mtime, member.mtime))
        for path in more:
            os.utime(self._place(path), (time, time))

    def append(self, path: str, text: str, time: int) -> None:
        """Add ``text`` to the end of a file, which is made if it is not there."""
        target = self._place(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8") as file:
            file.write(text)
        self._list(path, self.members[path].mode if path in self.members else 0o644, time)

    def sysusers_provides(self) -> list[str]:
        """Return the capabilities that rpm ≥ 4.19 derives from sysusers.d files.

        The whole line is encoded in the version of ``user(NAME)``; it is padded with NUL bytes,
        because ``=`` cannot stand in a version (rpm, ``%add_sysuser``).
        """
        provides = []
        for path in sorted(self.members):
            if path.startswith("/usr/lib/sysusers.d/") and path.endswith(".conf"):
                for line in self._place(path).read_text(encoding="utf-8").splitlines():
                    fields = line.split()
                    kind = {"u": "user", "u!": "user", "g": "group"}.get(fields[0] if fields else "")
                    if kind is not None:
                        provides.append(f"{kind}({fields[1]}) = {_encoded(' '.join(fields))}")
                        provides += [f"group({fields[1]})"] if kind == "user" else []
        return provides

    def _place(self, path: str) -> Path:
        return self.root / path[1:]

    def _fresh(self, path: str) -> Path:
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        return place

    def _list(self, path: str, mode: int, time: int) -> None:
        place = self._place(path)
        place.chmod(mode)
        os.utime(place, (time, time))
        self.members[path] = Member(path, "file", mode, "root", "root", time)
        if path.startswith("/etc/"):
            self.conffiles.add(path)


def _encoded(line: str) -> str:
    content = line.encode()
    return base64.b64encode(content + bytes(-len(content) % 3)).decode()
