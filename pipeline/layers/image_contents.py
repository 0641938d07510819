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
from pipeline.packages import DATABASE_LIMIT, read_all_installed, require_database_size
from pipeline.trees import MergedLayers
from pipeline.trees.scan import is_opaque

_PRIVILEGED = stat.S_ISUID | stat.S_ISGID


def read_contents(image: Image, lowers: Sequence[Path]) -> Contents:
    """Read the packages and privileged files of an image from its unpacked layers.

    `lowers` are the image's unpacked layers, the lowest first. Raises VerificationError `rpmdb-damaged`,
    `rpmdb-too-large`, `rpmdb-label-malformed`; BuildError `too-deep`.
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
    """Read the packages of all RPM databases in the merged tree.

    Returns the path of the likeliest one ("" if there is none), and the packages. No database hides another's, so that
    a decoy hides no package from a rule.
    """
    merged, known, size = MergedLayers(lowers), set[str](), 0
    found: dict[str, bytes] = {}
    for path in paths:
        real = merged.real(path)
        if real is None or real in known:
            continue
        known.add(real)
        data = merged.read(real, DATABASE_LIMIT + 1)
        if data is not None:
            size += len(data)
            require_database_size(size, path)
            found[path] = data
    packages = (PackageLicense(str(one.nevra), one.license) for one in read_all_installed(found))
    return next(iter(found), ""), tuple(packages)


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
