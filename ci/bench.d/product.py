"""relbuild with a store and a copy of the recipes of its own, and peers that make an image of the same packages."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from turns import MIRROR, ROOT, BenchFailed, relbuild, run

from pipeline.recipes import load_recipe

DEFAULT = "mysql"
CORES = len(os.sched_getaffinity(0))

PIPELINE = r"""
set -euo pipefail
out=$1 cores=$2; shift 2
mkdir "$out/trees"
xargs -a "$out/packages" -P "$cores" -I{} sh -c \
  'name=$(basename "$1"); mkdir "$2/$name"; rpm2cpio "$1" | cpio -idm --quiet -D "$2/$name"' - {} "$out/trees"
members=()
for tree in "$out"/trees/*; do members+=(-C "$tree" .); done
tar --create --format=pax --numeric-owner --exclude=./usr/share/doc/* --exclude=./usr/share/man/* \
    --exclude=./usr/share/info/* "${members[@]}" |
  tee >(sha256sum > "$out/diff_id") | "$@" | tee "$out/blob" | sha256sum > "$out/digest"
"""
"""What people write by hand: unpack each package, all of it into one tar, compressed; with the two digests of a layer.
It neither resolves nor verifies, runs no scriptlet, makes no RPM database and no image."""


class Relbuild:
    """relbuild with a store and a copy of the recipes of its own."""

    def __init__(self, folder: Path, product: str, compression: str = "gzip") -> None:
        folder.mkdir()
        self.folder, self.product, self.compression = folder, product, compression
        shutil.copytree(ROOT / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(ROOT / "templates", folder / "templates")
        self.recipe = folder / "recipes" / f"{product}.yaml"

    def build(self, *options: str) -> dict[str, Any]:
        """Build the product and return what `--json` says."""
        return dict(json.loads(
            relbuild(
                "build", self.recipe, "--store", self.folder / "store", "--output", self.folder / "output",
                "--compression", self.compression, "--progress", "none", "--json", *options,
            )
        ))  # fmt: skip

    def forget(self) -> None:
        """Remove all that was built, with the lock."""
        for name in ("store", "output"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.recipe.with_suffix(".lock").unlink(missing_ok=True)

    def add_repository(self, name: str, folder: Path) -> None:
        """Add a repository, with its key in `key.asc`, to the platform that the product is built for."""
        file = self.recipe.with_name("repositories.yaml")
        document = yaml.safe_load(file.read_text())
        document["platforms"]["local"]["repositories"].append(
            {"id": name, "baseurls": [f"file://{folder}"], "keys": [f"{folder}/key.asc"], "signed-metadata": True}
        )
        file.write_text(yaml.safe_dump(document, sort_keys=False))

    @property
    def packages(self) -> list[str]:
        """What the recipe asks for."""
        return [request.text for layer in load_recipe(self.recipe).layers for request in layer.requests]

    def layers(self) -> list[Path]:
        """Blobs of the layers of the last build's image, the state layer last."""
        layout = self.folder / "output" / self.product
        (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
        manifest = json.loads(_blob(layout, descriptor).read_text())
        return [_blob(layout, layer) for layer in manifest["layers"]]

    def chosen(self) -> list[Path]:
        """The files of the packages that the last build chose."""
        sbom = json.loads((self.folder / "output" / f"{self.product}.report" / "bill.json").read_text())
        return [package_file(one["nevra"]) for one in sbom["packages"]]


def _blob(layout: Path, descriptor: Mapping[str, str]) -> Path:
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def package_file(nevra: str) -> Path:
    """Return the file of a package in the development mirror. Raises BenchFailed if it is not there."""
    name, _, rest = nevra.partition(":")
    if rest:  # NAME-EPOCH:VERSION-RELEASE.ARCH, whose file has no epoch.
        nevra = f"{name.rpartition('-')[0]}-{rest}"
    for folder in ("updates", "base"):
        for path in (MIRROR / folder / f"{nevra}.rpm", *(MIRROR / folder).glob(f"*/{nevra}.rpm")):
            if path.exists():
                return path
    raise BenchFailed(f"the mirror has no file of {nevra}")


def dnf_words(folder: Path, more: Mapping[str, Path] | None = None) -> list[str]:
    """Options of dnf and of dnf5: both repositories of the mirror, signatures checked, nothing of the machine.

    `more` are repositories with their keys in `key.asc`, by name. Neither documentation nor weak dependencies, as the
    products' recipes say.
    """
    words = ["-y", "--quiet", "--releasever=1", "--setopt=reposdir=/dev/null", f"--setopt=cachedir={folder}/cache",
             "--setopt=install_weak_deps=0", "--setopt=best=1", "--setopt=keepcache=1",
             "--setopt=tsflags=nodocs"]  # fmt: skip
    folders = {name: (MIRROR / name, MIRROR / "RPM-GPG-KEY-local") for name in ("base", "updates")}
    folders |= {name: (place, place / "key.asc") for name, place in (more or {}).items()}
    for name, (place, key) in folders.items():
        words += [f"--repofrompath={name},file://{place}", f"--setopt={name}.gpgcheck=1",
                  f"--setopt={name}.gpgkey=file://{key}"]  # fmt: skip
    return words


def into_buildah(
    folder: Path, install: Sequence[str | Path], packages: list[str], more: Mapping[str, Path] | None = None
) -> None:
    """The peer: packages installed into a working container that is committed as an OCI layout, `folder`/layout.

    `more` are repositories beside the mirror's, by name. The layer is compressed with gzip, which buildah by itself
    leaves to the push.
    """
    storage = ["--root", str(folder / "containers"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    container = run("buildah", *storage, "from", "scratch").strip()
    mounted = run("buildah", *storage, "mount", container).strip()
    run(*install, f"--installroot={mounted}", *dnf_words(folder, more), "install", *packages)
    run("buildah", *storage, "umount", container)
    run("buildah", *storage, "commit", "--quiet", "--disable-compression=false", container, f"oci:{folder}/layout")
    run("buildah", *storage, "rm", container)


def shell_pipeline(folder: Path, packages: Sequence[Path], compressor: Sequence[str | Path]) -> int:
    """The peer: unpack, tar, compress, and both digests, on all cores. Returns the blob's bytes."""
    (folder / "packages").write_text("".join(f"{path}\n" for path in packages))
    run("bash", "-c", PIPELINE, "pipeline", folder, str(CORES), *compressor)
    return (folder / "blob").stat().st_size


@contextmanager
def emptied(base: Path, name: str) -> Iterator[Path]:
    """A new folder that is removed at the end, with what is read-only in it."""
    with tempfile.TemporaryDirectory(dir=base, prefix=name) as place:
        folder = Path(place)
        try:
            yield folder
        finally:
            run("chmod", "-R", "u+w", folder)
            for path in folder.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
