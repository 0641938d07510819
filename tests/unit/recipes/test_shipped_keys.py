"""The keys that are shipped with the platforms: each is read, and is the one that its definition pins."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.model.platform import PackageRepository, is_relative_key
from pipeline.model.signing_key import KeyFault
from pipeline.repos import RepositoryKey
from pipeline.repos.openpgp_keys import read_keys
from pipeline.repos.variables import expand_repository, platform_variables
from tests.support.lookalikes.platforms import platform_names
from tests.support.shipped_recipes import RECIPES, shipped_platforms

KEYS = RECIPES / "keys"
DOWNLOADED = {
    "https://download.docker.com/linux/rhel/gpg",
    "https://raw.githubusercontent.com/vmware/photon/91f3a826bf183de9484ca29429916bd233832ccf"
    "/SPECS/photon-repos/VMWARE-RPM-GPG-KEY-4096",
}
"""Keys that could not be had for the tree (recipes/keys/README.md)."""

SHIPPED_AT = 1_795_737_600
"""2026-11-27, in seconds since the epoch: when the keys were last looked at."""


def repositories() -> Iterator[tuple[str, PackageRepository]]:
    """Every repository of every shipped platform, with its variables replaced, for each architecture."""
    shipped = platform_names(shipped_platforms())
    for name, platform in shipped_platforms().items():
        for arch in platform.architectures if name in shipped else ():
            for one in platform.repositories:
                variables = platform_variables(platform, arch, {"HOME": "/root"})
                yield f"{name}/{one.id}", expand_repository(one, variables, {"HOME": "/root"})


@cache
def keys_in(path: Path) -> tuple[RepositoryKey, ...]:
    return read_keys("shipped", path.read_bytes(), path.name)


def test_every_platform_loads_on_any_machine() -> None:
    platforms = shipped_platforms()
    assert all(name.endswith("-registered") for name in platforms.broken)  # whose files an entitled machine has
    assert len(platforms) >= 30


def test_a_repository_trusts_the_keys_in_the_tree_that_it_pins_and_downloads_none_but_two() -> None:
    downloaded = set()
    for name, one in repositories():
        assert one.fingerprints, f"{name} pins no key"
        found: set[str] = set()
        for place in one.keys:
            if Path(place).is_relative_to(KEYS):
                found |= {key.fingerprint for key in keys_in(Path(place))}
            else:
                downloaded.add(place)
        if found:
            assert set(one.fingerprints) <= found, f"{name}: {one.keys}"
        else:
            assert set(one.keys) <= DOWNLOADED, f"{name}: {one.keys}"
    assert downloaded == DOWNLOADED


def test_every_pinned_key_counted_when_it_was_shipped() -> None:
    """One that has expired since does not fail the tests of an old checkout, but its users' builds: renew it."""
    pinned = {fingerprint for _, one in repositories() for fingerprint in one.fingerprints}
    keys = [key for path in KEYS.iterdir() if path.suffix != ".md" for key in keys_in(path)]
    unusable = [one for key in keys for one in key.unusable if one.fingerprint in pinned]
    assert [one for one in unusable if one.fault is not KeyFault.EXPIRED or one.since < SHIPPED_AT] == []


def test_every_file_is_used() -> None:
    used = {Path(place) for _, one in repositories() for place in one.keys if Path(place).is_relative_to(KEYS)}
    assert used == {path for path in KEYS.iterdir() if path.suffix != ".md"}


def test_an_installed_relbuild_has_them_too() -> None:
    root = RECIPES.parent
    (patterns,) = [
        ast.literal_eval(node.value)
        for node in ast.parse((root / "ci/wheel_files.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES"
    ]
    for folder in ("recipes", "recipes/keys", "templates", "docs"):
        packed = {
            path for pattern, place in patterns.items() if place == f"relbuild/{folder}" for path in root.glob(pattern)
        }
        there = {path for path in (root / folder).iterdir() if path.is_file() and path.suffix != ".lock"}
        assert there <= packed, folder


@pytest.mark.parametrize("name", ["fedora-43", "rocky-9", "mysql-8.4-el9"])
def test_the_files_are_sent_to_workers(name: str) -> None:
    relative = [key for one in shipped_platforms()[name].repositories for key in one.keys if is_relative_key(key)]
    assert relative
    assert {KEYS / path.name for path in shipped_platforms()[name].files} == set(shipped_platforms()[name].files)
