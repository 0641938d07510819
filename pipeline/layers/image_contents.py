"""The contents of an image (packages, privileged files), read from its unpacked layers.

They are read from the published layers, whoever built them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.model.evidence import Contents, PackageLicense, PrivilegedFile
from pipeline.model.image import Image
from pipeline.model.rpm_database import database_paths
from pipeline.packages import DATABASE_LIMIT, read_installed
from pipeline.sandbox import RootFs
from pipeline.trees.scan import is_opaque

_PRIVILEGED = stat.S_ISUID | stat.S_ISGID


def read_contents(image: Image, lowers: Sequence[Path]) -> Contents:
    """Read the packages and privileged files of an image from its unpacked layers.

    `lowers` are the image's unpacked layers, the lowest first. Raises VerificationError `rpmdb-damaged`.
    """
    labels = dict(image.config.labels)
    database, packages = _packages(lowers, database_paths(labels))
    return Contents(
        name=image.name,
        version=labels.get("org.opencontainers.image.version", ""),
        architecture=image.config.architecture,
        packages=packages,
        privileged=tuple(_privileged(lowers)),
        database=database,
    )


def _packages(lowers: Sequence[Path], paths: Sequence[str]) -> tuple[str, tuple[PackageLicense, ...]]:
    """Read the packages from the RPM database; return its path ("" if none) and them."""
    for lower in reversed(lowers):
        handle = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for path in paths:
                data = RootFs(handle, 0).read(path, limit=DATABASE_LIMIT)
                if data is not None:
                    return path, tuple(PackageLicense(str(one.nevra), one.license) for one in read_installed(data))
        finally:
            os.close(handle)
    return "", ()


def _privileged(lowers: Sequence[Path]) -> list[PrivilegedFile]:
    found: dict[str, int] = {}
    for number, lower in enumerate(lowers):
        for path, mode in _programs(lower):
            if not any(_hides(upper, path) for upper in lowers[number + 1 :]):
                found[path] = mode
    return [PrivilegedFile(f"/{path}", mode) for path, mode in sorted(found.items())]


def _programs(root: Path) -> Iterator[tuple[str, int]]:
    """Yield setuid and setgid programs in one layer; symlinks are not followed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as items:
            for item in items:
                path = f"{folder}/{item.name}" if folder else item.name
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif item.is_file(follow_symlinks=False):
                    mode = stat.S_IMODE(item.stat(follow_symlinks=False).st_mode)
                    if mode & _PRIVILEGED:
                        yield os.fsencode(path).decode(errors="replace"), mode


def _hides(upper: Path, path: str) -> bool:
    """Return whether an upper layer replaces or removes a lower one's `path`."""
    place = upper
    for part in path.split("/"):
        place /= part
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISDIR(mode):
            return True
        if is_opaque(str(place)):
            return True
    return True
