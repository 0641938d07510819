"""Packages as composition sees them, from files that are written down in a test."""

from __future__ import annotations

import stat

import pytest

from pipeline.digest import Digest
from pipeline.errors import BuildError
from pipeline.model.accounts import AccountTable
from pipeline.model.header import FileRecord, PackageHeader
from pipeline.model.package import Nevra
from pipeline.model.recipe import Group, User
from pipeline.trees import (
    ComposeOptions,
    Composition,
    compose,
)

ACCOUNTS = AccountTable((User("root", 0), User("mysql", 27)), (Group("root", 0), Group("mysql", 27)))


def regular(path: str, content: str = "x", **more: object) -> FileRecord:
    values: dict[str, object] = {
        "path": path,
        "mode": stat.S_IFREG | 0o644,
        "user": "root",
        "group": "root",
        "size": len(content),
        "mtime": 5,
        "digest": Digest.of(content.encode()),
        **more,
    }
    return FileRecord(**values)  # type: ignore[arg-type]


def directory(path: str, mode: int = 0o755, **more: object) -> FileRecord:
    return regular(path, "", mode=stat.S_IFDIR | mode, digest=None, **more)


def symlink(path: str, to: str) -> FileRecord:
    return regular(path, "", mode=stat.S_IFLNK | 0o777, digest=None, link=to)


def package(name: str, *files: FileRecord, built: int = 100, arch: str = "noarch") -> PackageHeader:
    return PackageHeader(
        nevra=Nevra(name, 0, "1", "1", arch),
        checksum=Digest.of(f"{name}.{arch}".encode()),
        files=files,
        scriptlets=(),
        triggers=(),
        provides=(),
        requires=(),
        build_time=built,
    )


def composed(*packages: PackageHeader, **options: object) -> Composition:
    return compose([("all", packages)], ACCOUNTS, ComposeOptions(**options))  # type: ignore[arg-type]


def problems(*packages: PackageHeader, **options: object) -> list[tuple[str, str]]:
    with pytest.raises(BuildError) as caught:
        composed(*packages, **options)
    return [(problem.code, problem.message) for problem in caught.value.problems]


def emitted(composition: Composition, layer: int = 0) -> dict[str, str]:
    return {entry.path: str(part.nevra) for part in composition.layers[layer].parts for _, entry in part.entries}
