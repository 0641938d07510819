"""Unpack a recipe's archive (tar, cpio or zip) below a path of the image, and nowhere else.

Content is the archive's; owners, modes and times are the recipe's. Its checksum was verified, but it is not trusted: a
name or link that leads out, a device, or more content than the limit is refused.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from dataclasses import field
from typing import BinaryIO

from pipeline.archives import (
    ArchiveFilter,
    ArchiveFormat,
    ArchiveHeader,
    ArchiveMember,
    MalformedArchive,
    read_archive,
    read_zip,
)
from pipeline.compression import PIECE
from pipeline.errors import BuildError, VerificationError
from pipeline.layers.recipe_files import ImageArchive, ImageFile
from pipeline.lazy_dataclasses import dataclass
from pipeline.sandbox import RootFs
from pipeline.streams import decompressed
from pipeline.trees import split_path
from pipeline.trees.canonical_path import PATH_LIMIT

ARCHIVE_ENTRIES_LIMIT = 1_000_000
"""Entries of one archive: ten times a large application."""
ARCHIVE_CONTENT_LIMIT = 8 << 30
"""Bytes of all files of one archive, holes included: as many as a build session may write."""

ARCHIVE_DIRECTORY_MODE = 0o755
"""Permissions of directories and programs where the recipe gives none."""
_EXECUTE = 0o111

_FILTERS = {
    b"\x1f\x9d": ArchiveFilter.COMPRESS,
    b"\x04\x22\x4d\x18": ArchiveFilter.LZ4,
    b"LZIP": ArchiveFilter.LZIP,
    b"\x5d\x00\x00": ArchiveFilter.LZMA,
}
"""First bytes of streams that only libarchive decompresses."""
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_LINKS_LIMIT = 40
"""Symlinks that are followed in one path: the kernel's own bound (path_resolution(7))."""
_HOLE = bytes(1 << 20)


def place_archive(file: ImageFile, archive: BinaryIO, root: RootFs, *, uid: int, gid: int, mtime: int) -> None:
    """Unpack `archive` below `file.path`.

    Existing directories keep their owners and modes.

    Raises BuildError `archive-unsafe`, `archive-malformed`, `archive-too-large`, `archive-empty`.
    """
    assert file.archive is not None
    placing = _Unpacking(file, file.archive, root, uid, gid, mtime)
    try:
        placing.folder(())
        for member in archive_members(archive):
            placing.place(member)
        placing.finish()
    except MalformedArchive as error:
        raise placing.wrong("archive-malformed", f"it cannot be read: {error}") from None
    except VerificationError as error:
        code = "archive-too-large" if error.code == "stream-too-large" else "archive-malformed"
        raise placing.wrong(code, f"it cannot be read: {error.problems[0].message}") from None


def archive_members(archive: BinaryIO) -> Iterator[ArchiveMember]:
    """Yield the members of an archive, whose format is detected by its first bytes.

    Raises MalformedArchive, VerificationError `stream-damaged` and `stream-too-large`, EnvironmentLacking
    `library-missing`.
    """
    start = archive.read(8)
    archive.seek(0)
    if start.startswith(_ZIP):
        return read_zip(archive)
    streams = (ArchiveFormat.TAR, ArchiveFormat.CPIO)
    for magic, packed in _FILTERS.items():
        if start.startswith(magic):
            return read_archive(iter(lambda: archive.read(PIECE), b""), *streams, packed=packed)
    # Headers and padding come to less than the content and 4 KiB for each entry.
    pieces = decompressed(archive, limit=2 * ARCHIVE_CONTENT_LIMIT, name="it")
    first = next(pieces, b"")
    return read_archive(itertools.chain((first,), pieces), *streams) if first else iter(())


@dataclass(slots=True)
class _Unpacking:
    """The state of unpacking one archive.

    Paths are tuples of names below the recipe's path; `folders` are known to be directories and no links, `files` are
    those of the archive with all of their hard links.
    """

    file: ImageFile
    archive: ImageArchive
    root: RootFs
    uid: int
    gid: int
    mtime: int
    base: str = ""
    left: int = field(default_factory=lambda: ARCHIVE_CONTENT_LIMIT)
    count: int = 0
    folders: set[tuple[str, ...]] = field(default_factory=set)
    files: dict[tuple[str, ...], list[tuple[str, ...]]] = field(default_factory=dict)
    links: dict[tuple[str, ...], str] = field(default_factory=dict)

    def wrong(self, code: str, why: str, hint: str | None = None) -> BuildError:
        """Make an error about this archive."""
        return BuildError(
            code, f"the archive '{self.archive.name}' is refused: {why}", place=self.file.place, hint=hint
        )

    def place(self, member: ArchiveMember) -> None:
        """Unpack one entry, unless stripping leaves nothing of its name."""
        self.count += 1
        if self.count > ARCHIVE_ENTRIES_LIMIT:
            raise self.wrong("archive-too-large", f"it has more than {ARCHIVE_ENTRIES_LIMIT} entries")
        header = member.header
        path = self._stripped(header.path)
        if not path:
            return
        kind = stat.S_IFMT(header.mode)
        if header.hardlink is not None:
            self._demand_new(path)
            self._hard_link(path, self._stripped(header.hardlink), member)
        elif kind == stat.S_IFDIR:
            self.folder(path)
        elif kind == stat.S_IFREG:
            self._demand_new(path)
            self._write(path, member)
            self.files[path] = [path]
        elif kind == stat.S_IFLNK:
            self._demand_new(path)
            self.folder(path[:-1])
            target = (header.symlink or b"").decode(errors="surrogateescape")
            if not 0 < len(header.symlink or b"") < PATH_LIMIT:
                raise self.wrong("archive-unsafe", f"the symlink '{_shown(header)}' has an empty or too long target")
            self.root.symlink(self._whole(path), target, uid=self.uid, gid=self.gid, mtime=self.mtime)
            self.links[path] = target
        else:
            raise self.wrong("archive-unsafe", f"'{_shown(header)}' is not a file, directory or link")

    def finish(self) -> None:
        """Check the whole: that no link leads out, and that there are entries."""
        for path, target in self.links.items():
            why = self._leads_out(path, target)
            if why:
                raise self.wrong("archive-unsafe", f"the symlink '{'/'.join(path)}' → '{target}' {why}")
        if not (self.files or self.links or len(self.folders) > 1):
            raise self.wrong(
                "archive-empty",
                f"nothing remains of it after 'strip: {self.archive.strip}'"
                if self.archive.strip and self.count
                else "it is empty",
                "list its names with `tar -t`, and correct 'strip'" if self.archive.strip else None,
            )

    def folder(self, path: tuple[str, ...]) -> None:
        """Make a directory with those above it, up to the recipe's path.

        An existing one must be a directory itself, not a link of a package that leads elsewhere.
        """
        if path in self.folders:
            return
        if path:
            self.folder(path[:-1])
        else:
            # Links in the recipe's own path are followed: /lib may be one.
            self.base = self.root.real(self.file.path)
        whole = self._whole(path)
        found = self.root.stat(whole, follow=False)
        if found is None:
            self.root.make_directory(
                whole, mode=self._mode(executable=True), uid=self.uid, gid=self.gid, mtime=self.mtime
            )
        elif not stat.S_ISDIR(found.st_mode):
            raise self.wrong(
                "archive-unsafe", f"'{whole}' must be a directory, but is not one in the image or the archive"
            )
        self.folders.add(path)

    def _hard_link(self, path: tuple[str, ...], target: tuple[str, ...], member: ArchiveMember) -> None:
        names = self.files.get(target)
        if names is None:
            raise self.wrong(
                "archive-unsafe",
                f"'{_shown(member.header)}' is a hard link whose target does not precede it in the archive",
            )
        self.folder(path[:-1])
        if member.header.size > 0:
            # In cpio archives the last of a file's hard links has its content.
            self._write(path, member)
            for name in names:
                self.root.link(self._whole(name), self._whole(path))
        else:
            self.root.link(self._whole(path), self._whole(names[0]))
        names.append(path)
        self.files[path] = names

    def _write(self, path: tuple[str, ...], member: ArchiveMember) -> None:
        self.folder(path[:-1])
        header = member.header
        if header.encrypted:
            raise self.wrong("archive-malformed", f"'{_shown(header)}' is encrypted")
        self.root.write_file(
            self._whole(path),
            self._content(member),
            mode=self._mode(executable=bool(header.mode & _EXECUTE)),
            uid=self.uid,
            gid=self.gid,
            mtime=self.mtime,
        )

    def _content(self, member: ArchiveMember) -> Iterator[bytes | memoryview]:
        """Yield a file's content, holes as zeros; raise beyond the bound on all content."""
        size, at = member.header.size, 0
        if size > self.left:
            raise self.wrong("archive-too-large", f"its files exceed {ARCHIVE_CONTENT_LIMIT >> 30} GiB")
        for offset, block in member.blocks():
            if offset < at or offset + len(block) > size:
                raise self.wrong("archive-malformed", f"'{_shown(member.header)}' has content beyond its size")
            yield from _holes(offset - at)
            yield block
            at = offset + len(block)
        yield from _holes(size - at)
        self.left -= size

    def _mode(self, *, executable: bool) -> int:
        mode = ARCHIVE_DIRECTORY_MODE if self.file.mode is None else self.file.mode
        return mode if executable else mode & ~_EXECUTE

    def _whole(self, path: tuple[str, ...]) -> str:
        return "/".join((self.base.rstrip("/"), *path)) if path else self.base

    def _stripped(self, name: bytes) -> tuple[str, ...]:
        text = name.decode(errors="surrogateescape")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        shown = name.decode(errors="replace")
        if text.startswith("/") or ".." in parts:
            raise self.wrong("archive-unsafe", f"the name '{shown}' leads out of the archive")
        try:
            split_path(f"{self.file.path}/{'/'.join(parts)}" if parts else self.file.path)
        except BuildError as error:
            raise self.wrong("archive-unsafe", error.problems[0].message) from None
        return tuple(parts[self.archive.strip :])

    def _demand_new(self, path: tuple[str, ...]) -> None:
        if path in self.files or path in self.links:
            raise self.wrong("archive-malformed", f"'{'/'.join(path)}' appears twice")

    def _leads_out(self, path: tuple[str, ...], target: str) -> str:
        """Return why a symlink leads out, following the archive's links; "" if it does not."""
        done, ahead, followed = list(path[:-1]), target.split("/")[::-1], 0
        if target.startswith("/"):
            return "is absolute; it must point inside the archive"
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return f"leads out of {self.file.path}"
                done.pop()
                continue
            further = self.links.get((*done, part))
            if further is None:
                done.append(part)
                continue
            followed += 1
            if followed > _LINKS_LIMIT:
                return f"follows more than {_LINKS_LIMIT} links"
            ahead += further.split("/")[::-1]
        return ""


def _holes(size: int) -> Iterator[bytes]:
    while size > 0:
        yield _HOLE[:size]
        size -= len(_HOLE)


def _shown(header: ArchiveHeader) -> str:
    return header.path.decode(errors="replace")
