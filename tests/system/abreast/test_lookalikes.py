"""Every shipped platform builds a small image from its look-alike, by its shipped definition."""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import RelbuildError
from pipeline.model.rpm_database import DATABASE_FILES, DatabaseFormat
from pipeline.packages import read_installed
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.recipes import Platforms, load_platforms
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.store import Store
from tests.support.lookalikes.packages import BASE, PARTS
from tests.support.lookalikes.platforms import platform_names, serve_platforms
from tests.support.lookalikes.server import ServedSite
from tests.support.lookalikes.trust import PIN
from tests.system.conftest import ROOT

RECIPES = ROOT / "recipes"
SHIPPED = platform_names(load_platforms(RECIPES / "repositories.yaml"))
RECIPE = """
name: {name}
version: '1'
platform: local
architectures: [x86_64]
layers: [{{name: all, packages: [{packages}]}}]
image: {{entrypoint: [/bin/sh]}}
"""


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """The look-alikes of all platforms, and how relbuild finds them."""

    platforms: Platforms
    environment: BuildEnvironment
    served: ServedSite

    @property
    def folder(self) -> Path:
        """The folder of the definitions."""
        return self.served.recipes


@pytest.fixture(scope="module")
def lookalikes(closed: Path) -> Iterator[Lookalikes]:
    (closed / "store").mkdir(mode=0o700)
    with serve_platforms(RECIPES, closed) as served:
        variables = {"HOME": str(closed), **served.environment}
        environment = BuildEnvironment(Store.open(closed / "store"), QUIET, variables, time.time)
        yield Lookalikes(load_platforms(served.recipes / "repositories.yaml"), environment, served)


def options(lookalikes: Lookalikes, name: str) -> BuildOptions:
    platform = lookalikes.platforms[name]
    recipe = lookalikes.folder / f"{name}.yaml"
    wanted = ", ".join((*BASE, *PARTS[: len(platform.repositories)]))
    recipe.write_text(RECIPE.format(name=name, packages=wanted))
    return BuildOptions(
        recipe, lookalikes.folder / "repositories.yaml", name, smoke=False, output=lookalikes.folder.parent / "output"
    )


def test_nothing_in_the_definitions_is_different_but_the_pinned_fingerprints(lookalikes: Lookalikes) -> None:
    shipped, used = ((folder / "repositories.yaml").read_text() for folder in (RECIPES, lookalikes.folder))
    assert shipped != used
    assert PIN.sub("PIN", shipped) == PIN.sub("PIN", used)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_platform_builds_from_its_look_alike(lookalikes: Lookalikes, name: str, tmp_path: Path) -> None:
    before = len(lookalikes.served.asked)
    result = build(options(lookalikes, name), lookalikes.environment)
    assert set(addresses(lookalikes, name)) <= set(lookalikes.served.asked[before:])
    count = len(lookalikes.platforms[name].repositories)
    names = {str(nevra).rsplit("-", 2)[0] for nevra in result.locked.section.resolution.order}
    assert names == {*BASE, *PARTS[:count]}
    database = lookalikes.platforms[name].rpm_database
    extract(lookalikes, result, database.folder, tmp_path)
    file = tmp_path / DATABASE_FILES[database.format]
    assert {one.nevra.name for one in read_installed(file.read_bytes())} == names
    if database.format is DatabaseFormat.SQLITE:  # This machine's rpm reads no other; test_own_rpm.py has more.
        query = ["rpm", "--dbpath", tmp_path, "-qa", "--queryformat", "%{NAME} %{RSAHEADER:pgpsig}\n"]
        told = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
        assert {line.split()[0] for line in told} == names
        assert all("RSA/SHA256" in line for line in told)


@pytest.mark.parametrize(
    ("product", "platform", "full_name", "packages"),
    [
        (
            "mysql",
            "rocky-9",
            "rocky-9+mysql-8.4",
            {"mysql-community-server": "mysql-8.4", "mysql-community-client": "mysql-8.4", "bash": "baseos"},
        ),
        ("mysql", "fedora-44", "fedora-44", {"mysql-server": "fedora", "mysql": "fedora"}),
        (
            "mariadb",
            "opensuse-tumbleweed",
            "opensuse-tumbleweed",
            {"mariadb": "oss", "mariadb-client": "oss", "timezone": "oss", "openSUSE-release": "oss"},
        ),
    ],
)
def test_a_shipped_recipe_builds_under_the_names_that_its_packages_have_there(
    lookalikes: Lookalikes, product: str, platform: str, full_name: str, packages: dict[str, str], tmp_path: Path
) -> None:
    wanted = BuildOptions(
        RECIPES / f"{product}.yaml",
        lookalikes.folder / "repositories.yaml",
        platform,
        smoke=False,
        output=tmp_path / "output",
        locks=tmp_path,
    )
    result = build(wanted, lookalikes.environment)
    chosen = {one.package.nevra.name: one.package.repository for one in result.locked.section.resolution.chosen}
    assert packages.items() <= chosen.items()
    assert result.image.reference == "1", "the version of the package that is called otherwise"
    assert result.record.provenance.platform == full_name


def addresses(lookalikes: Lookalikes, name: str) -> Iterator[str]:
    """The URLs that the shipped definition of a platform leads to first."""
    shipped = load_platforms(RECIPES / "repositories.yaml")[name]
    for plain in shipped.repositories:
        one = expand_repository(plain, platform_variables(shipped, "x86_64", {}), {})
        yield one.metalink or one.mirrorlist or f"{one.baseurls[0].rstrip('/')}/repodata/repomd.xml"


def extract(lookalikes: Lookalikes, result: BuildResult, folder: str, into: Path) -> None:
    """Copy the files of a folder out of the image's topmost layer."""
    top = result.image.layers[-1].blob.digest
    with tarfile.open(lookalikes.environment.store.blob(top)) as archive:
        for entry in archive:
            path = PurePosixPath("/") / entry.name
            file = archive.extractfile(entry) if entry.isfile() and str(path.parent) == folder else None
            if file is not None:
                (into / path.name).write_bytes(file.read())


@pytest.mark.parametrize("name", ["rocky-9", "rhel-9"])
def test_keys_and_entitlements_of_others_are_refused(lookalikes: Lookalikes, name: str) -> None:
    """With the pins of the real keys no look-alike is trusted, and without an entitlement nothing is served."""
    wanted = options(lookalikes, name)
    store = lookalikes.folder.parent / f"other-{name}"
    store.mkdir(mode=0o700)
    variables = {**lookalikes.environment.environment}
    if name == "rhel-9":
        variables["RELBUILD_VAR_ENTITLEMENT"] = str(store)
        wanted, code = replace(wanted, locks=store), "client-certificate-missing"
    else:
        wanted, code = replace(wanted, locks=store, repositories=RECIPES / "repositories.yaml"), "package-key-unknown"
    environment = replace(lookalikes.environment, store=Store.open(store), environment=variables)
    with pytest.raises(RelbuildError) as caught:
        build(wanted, environment)
    assert caught.value.code == code
