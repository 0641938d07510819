"""Values that a build is made of, for tests without repositories: packages, headers, locks, images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.digest import DiffId, Digest
from pipeline.model.accounts import AccountTable
from pipeline.model.header import FileRecord, PackageHeader
from pipeline.model.image import Descriptor, Image, ImageConfig, Layer
from pipeline.model.lock import LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.parent_image import InstalledPackage, ParentImage
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.recipe import LayerPlan, Recipe, Request
from pipeline.model.resolution import Chosen, Reason, Resolution
from pipeline.model.tree import Tree
from pipeline.oci import make_image
from pipeline.prepare import BuildEnvironment, BuildOptions, LockedRecipe
from pipeline.progress import QUIET
from pipeline.store import Store

ARCH = "x86_64"
PLATFORM = Platform("el9", (PackageRepository("base", baseurls=("file:///nowhere",)),))
NOBODY = AccountTable((), ())
DEMO_RECIPE = """\
name: demo
version: '1'
platform: el9
architectures: [x86_64]
layers: [{name: base, packages: [a]}]
image: {entrypoint: [/a]}
"""
DEMO_PLATFORMS = """\
platforms:
  el9: {architectures: [x86_64, aarch64], repositories: [{id: base, baseurls: [file:///nowhere], keys: [/key]}]}
"""


def ticking(step: float = 1.0) -> Any:
    """A clock that goes a step with each look."""
    now = iter(range(1_000_000))
    return lambda: 1_800_000_000 + step * next(now)


def build_env(folder: Path, **more: Any) -> BuildEnvironment:
    """An environment with a store of its own and a clock that ticks."""
    given: dict[str, Any] = {"progress": QUIET, "environment": {}, "clock": ticking(), **more}
    return BuildEnvironment(given.pop("store", None) or Store.open(folder / "store"), **given)


def order(folder: Path, name: str = "demo", **more: Any) -> BuildOptions:
    """The order for the recipe of that name in a folder."""
    return BuildOptions(folder / f"{name}.yaml", folder / "repositories.yaml", output=folder / "output", **more)


def write_demo(folder: Path) -> Path:
    """Write a recipe and the file of its platforms into a folder; the folder."""
    (folder / "demo.yaml").write_text(DEMO_RECIPE)
    (folder / "repositories.yaml").write_text(DEMO_PLATFORMS)
    return folder


def opened(*ids: str, state: bytes = b"today") -> tuple[Any, ...]:
    """Repositories as they are when they were opened; `state` stands for their metadata."""
    return tuple(SimpleNamespace(repository=SimpleNamespace(id=one), repomd=Digest.of(state)) for one in ids)


def recipe(folder: Path, name: str = "demo", *layers: LayerPlan, **more: Any) -> Recipe:
    """A recipe of one layer unless others are given."""
    plain = (LayerPlan("base", (Request("bash", f"{name}.yaml:5"),)),)
    return Recipe(name, folder / f"{name}.yaml", "1.0", "el9", (ARCH,), layers or plain, **more)


def package(nevra: str, repository: str = "base", **more: Any) -> Package:
    """A package whose file is its name."""
    parsed = Nevra.parse(nevra)
    made = Package(parsed, Digest.of(nevra.encode()), len(nevra), repository, f"Packages/{nevra}.rpm", 1_700_000_000)
    return replace(made, **more)


def header(nevra: str, *files: FileRecord, **more: Any) -> PackageHeader:
    """The header of the package of that name."""
    parsed = Nevra.parse(nevra)
    return PackageHeader(parsed, Digest.of(nevra.encode()), files, (), (), (), (), build_time=1_700_000_000, **more)


def section(*packages: Package, layer: str = "base", **more: Any) -> LockSection:
    """The lock of packages, in the order in which they are given; all are in one layer."""
    chosen = tuple(Chosen(one, layer, (Reason("requested", one.nevra.name),)) for one in sorted(packages))
    resolution = Resolution("el9", ARCH, chosen, tuple(str(one.nevra) for one in packages))
    return replace(LockSection(resolution, (("requests", Digest.of(b"a")),), 1_700_000_000), **more)


def locked(of: Recipe, *nevras: str, **more: Any) -> LockedRecipe:
    """A recipe that was locked with packages."""
    given: dict[str, Any] = {
        "recipe": of,
        "platform": PLATFORM,
        "section": section(*map(package, nevras)),
        "headers": tuple(map(header, nevras)),
        "accounts": NOBODY,
        "path": of.path.with_suffix(".lock"),
        "wrote": False,
        "first": False,
        "why": (),
        "changes": (),
        "keys": (),
        **more,
    }
    return LockedRecipe(**given)


def layer(name: str) -> Layer:
    """A layer of which only the name matters."""
    return Layer(name, DiffId.of(f"tar of {name}".encode()), Descriptor("layer", Digest.of(name.encode()), 10), 1024)


def image(name: str = "demo", *layers: str, reference: str = "1.0", **more: Any) -> Image:
    """An image of layers by their names."""
    config = ImageConfig("amd64", 1_700_000_000, **{"entrypoint": ("/app",), **more})
    return make_image(name, reference, config, [layer(one) for one in layers or ("base", "state")])


def parent(name: str, *nevras: str, **more: Any) -> ParentImage:
    """A built image with packages, as another is built from it."""
    packages = tuple(
        InstalledPackage(header(one), Chosen(package(one), f"{name}/base", ()), (), 1_700_000_000) for one in nevras
    )
    made = image(name, f"{name}/base", f"{name}/state")
    return ParentImage(
        **{
            "image": made,
            "packages": packages,
            "tree": Tree.of({}),
            "accounts": NOBODY,
            "build_time": 1_700_000_000,
            **more,
        }
    )
