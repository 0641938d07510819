"""Pack the files that a task reads into a tar, and unpack them on its worker, bounded.

So a worker needs no copy of the catalogue.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath

from pipeline.archives import ArchiveFormat, ArchiveMember, MalformedArchive, read_archive
from pipeline.beneath import Folder, open_file
from pipeline.errors import UsageError, VerificationError
from pipeline.ini_documents import INI_LIMIT, holds_secret, is_repo_file
from pipeline.model.recipe import Recipe
from pipeline.resolve import lock_path
from pipeline.streams import decompressed

FOLDER_DEPTH_LIMIT = 32
"""Folders inside one another, more than any catalogue has."""
PACKED_LIMIT = 32 << 20
"""Bytes of one task's files, packed. They pass the scheduler, which keeps them until the task has ended."""

UNPACKED_LIMIT = 1 << 30
"""Bytes of one task's files, unpacked: text compresses tenfold, a decompression bomb a hundredfold."""
_MEMBER_COST = 512
"""Bytes that a file counts for besides its content: its header, and an inode where it is unpacked."""

_REPO_SUFFIX = ".repo"


def task_files(recipe: Recipe) -> tuple[Path, ...]:
    """Return the files and folders that building and testing a recipe may read.

    They are its own, its templates, and those of what it is built from.
    """
    return tuple(dict.fromkeys(path for one in _chain(recipe) for path in _read_by(one)))


def _chain(recipe: Recipe) -> Iterator[Recipe]:
    one: Recipe | None = recipe
    while one is not None:
        yield one
        one = one.parent


def _read_by(recipe: Recipe) -> Iterator[Path]:
    folder = recipe.path.parent
    yield recipe.path
    yield lock_path(recipe.path)
    yield from recipe.sources
    yield from recipe.template_folders
    yield from (folder / plan.origin for plan in recipe.files if plan.is_beside)
    yield from (folder / item.path for layer in recipe.layers for item in layer.local)
    if recipe.smoke.upgrade_from:
        yield folder / recipe.smoke.upgrade_from


def pack_files(files: Iterable[Path]) -> bytes:
    """Pack files and folders, under their absolute paths, into a compressed tar archive.

    Links within their folder are followed; links out of it, other types and missing files are left out, and the task
    that reads them fails. So are `.repo` files with passwords, whatever their names, that lie in a folder: what is
    packed passes through the scheduler. Raises UsageError `files-too-large`.
    """
    packed, added = io.BytesIO(), Path()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1, dereference=True) as archive:
        for path in files:
            for added in _add(archive, path):
                _require_packed_size(packed.tell(), added)
    _require_packed_size(packed.tell(), added)  # What gzip had not written yet; up to 0.5 MiB under Python 3.14.
    return packed.getvalue()


def _require_packed_size(size: int, file: Path) -> None:
    """Refuse more bytes than may be packed; `file` was packed last.

    Raises UsageError `files-too-large`.
    """
    if size > PACKED_LIMIT:
        raise UsageError(
            "files-too-large",
            f"the input files exceed {PACKED_LIMIT >> 20} MiB, packed, up to '{file}'",
            hint="put large files into an RPM package; they pass through the scheduler for every task",
        )


def _add(archive: tarfile.TarFile, path: Path) -> Iterator[Path]:
    """Add a file, or a folder with all in it; yields each path that was added."""
    if path.is_dir():
        yield from _add_folder(archive, Folder(path), Path(), ())
        return
    try:
        file = open_file(path)
    except OSError:
        return
    with file:
        _add_file(archive, file, path)
    yield path


def _add_folder(archive: tarfile.TarFile, top: Folder, inner: Path, above: tuple[int, ...]) -> Iterator[Path]:
    """Add a folder with all in it; yields the path of each file that was added.

    `inner` is below `top`; `above` are the inodes of the folders around it: a link to one is a circle.
    """
    whole = top.path / inner
    inode = whole.stat().st_ino
    if inode in above or len(above) > FOLDER_DEPTH_LIMIT:
        return
    member = tarfile.TarInfo(_name(whole))
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(member)
    for name in sorted(child.name for child in whole.iterdir()):
        try:
            if top.has_folder(inner / name):
                yield from _add_folder(archive, top, inner / name, (*above, inode))
                continue
            file = top.open(inner / name)
        except OSError:
            continue
        with file:
            begin = file.read(INI_LIMIT)
            if (name.endswith(_REPO_SUFFIX) or is_repo_file(begin)) and holds_secret(begin):
                continue
            file.seek(0)
            _add_file(archive, file, whole / name)
        yield whole / name


def _add_file(archive: tarfile.TarFile, file: BufferedReader, path: Path) -> None:
    archive.addfile(archive.gettarinfo(arcname=_name(path), fileobj=file), file)


def _name(path: Path) -> str:
    return os.path.normpath(path.absolute()).lstrip("/")


def unpack_files(packed: bytes, folder: Path) -> None:
    """Unpack the files into a folder, below their absolute paths.

    Raises VerificationError `files-malformed` for names outside the folder, other types than files and folders, too
    many bytes.
    """
    if len(packed) > PACKED_LIMIT:
        raise _malformed(f"it has more than {PACKED_LIMIT} bytes")
    left = UNPACKED_LIMIT
    try:
        pieces = decompressed(io.BytesIO(packed), limit=UNPACKED_LIMIT, name="it")
        for member in read_archive(pieces, ArchiveFormat.TAR):
            left -= member.header.size + _MEMBER_COST
            if left < 0:
                raise MalformedArchive(f"it unpacks to more than {UNPACKED_LIMIT} bytes")
            _put(member, folder)
    except MalformedArchive as error:
        raise _malformed(str(error)) from error
    except VerificationError as error:
        raise _malformed(error.problems[0].message) from error


def _put(member: ArchiveMember, folder: Path) -> None:
    header = member.header
    name = os.fsdecode(header.path)
    parts = PurePosixPath(name).parts
    kind = 0 if header.hardlink is not None or header.sparse else stat.S_IFMT(header.mode)
    if not parts or ".." in parts or name.startswith("/") or kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise MalformedArchive(f"'{name[:200]}' is not a file or folder inside the task's folder")
    place = folder.joinpath(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == stat.S_IFDIR:
        place.mkdir(exist_ok=True)
        return
    with place.open("wb") as file:
        for _, block in member.blocks():
            file.write(block)
    place.chmod(header.mode & 0o777)


def _malformed(why: str) -> VerificationError:
    return VerificationError("files-malformed", f"the task's input files cannot be unpacked: {why}")
