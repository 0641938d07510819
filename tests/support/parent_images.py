"""Parent images of packages that are only headers: what is built on them needs no file of theirs."""

from __future__ import annotations

from pipeline.digest import DiffId, Digest
from pipeline.model.accounts import AccountTable
from pipeline.model.header import (
    Dependency,
    FileRecord,
    PackageHeader,
    Scriptlet,
    Trigger,
)
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.package import Nevra, Package
from pipeline.model.parent_image import (
    InstalledPackage,
    ParentImage,
)
from pipeline.model.recipe import Group, User
from pipeline.model.resolution import Chosen, Reason
from pipeline.model.tree import Tree
from pipeline.oci import make_image
from pipeline.trees import (
    compose,
)

ROOT = AccountTable((User("root", 0, 0, "/root", "/bin/sh"),), (Group("root", 0),))


def header(
    name: str,
    evr: str = "1-1",
    *files: FileRecord,
    requires: tuple[str, ...] = (),
    provides: tuple[str, ...] = (),
    scriptlets: tuple[Scriptlet, ...] = (),
    triggers: tuple[Trigger, ...] = (),
    arch: str = "noarch",
) -> PackageHeader:
    version, _, release = evr.partition("-")
    return PackageHeader(
        nevra=Nevra(name, 0, version, release, arch),
        checksum=Digest.of(f"{name} {evr}".encode()),
        files=files,
        scriptlets=scriptlets,
        triggers=triggers,
        provides=(Dependency(name, 8, evr), *(Dependency(one) for one in provides)),
        requires=tuple(Dependency(one) for one in requires),
        build_time=1_800_000_000,
    )


def file(path: str, content: str = "x", mode: int = 0o100644, color: int = 0) -> FileRecord:
    digest = Digest.of(content.encode()) if mode & 0o100000 else None
    return FileRecord(path, mode, "root", "root", len(content), 5, digest, color=color)


def image(name: str = "base", config: ImageConfig | None = None) -> Image:
    layers = [
        Layer(one, DiffId(Digest.of(one.encode()).hex), Descriptor("x", Digest.of(one.encode()), 1), 1)
        for one in ("base/base", "base/state")
    ]
    return make_image(name, "1", config or ImageConfig("amd64", 0), layers)


def parent(
    *headers: PackageHeader, tree: Tree | None = None, states: dict[str, tuple[int, ...]] | None = None
) -> ParentImage:
    known = states or {}
    packages = tuple(
        InstalledPackage(
            one,
            Chosen(
                Package(one.nevra, one.checksum, 1, "r", "l", one.build_time),
                "base/base",
                (Reason("requested", one.nevra.name),),
            ),
            known.get(one.nevra.name, (0,) * len(one.files)),
            1_800_000_000,
        )
        for one in headers
    )
    laid = compose([("base", list(headers))], ROOT).tree
    return ParentImage(image(), packages, tree or laid, ROOT, 1_800_000_000)
