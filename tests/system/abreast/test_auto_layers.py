"""Recipes whose layers say `auto`, with packages that have changelogs: what is grouped, and what an update costs."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import ResolutionError
from pipeline.packages import read_change_days
from pipeline.prepare import BuildOptions
from pipeline.resolve import LockMode, lock_path, read_lock
from tests.support.derived_images import Family
from tests.support.product_builds import small_products
from tests.support.rpm_factory import Forge

PLATFORM = "platform: small\narchitectures: [x86_64]\n"
RUNS = "image: {entrypoint: [/usr/bin/busybox, sh, -c, 'echo up; sleep 100']}\n"
BASE = PLATFORM + RUNS + "layers: [{name: base, packages: [small, library, certificates, zones], auto: {at-most: 3}}]\n"
PACKAGES = "[small, library, certificates, zones, owner, guest, tool]"
DAY = 86_400
TODAY = int(time.time()) // DAY
"""In days since 1970, once for all: midnight may pass while the tests run."""


def package(
    forge: Forge, name: str, size: int, every: int, *, version: int = 1, more: str = "", files: str = ""
) -> Path:
    """A package with so many bytes that cannot be compressed, and a changelog of the three years before TODAY with an
    entry every so many days."""
    now = TODAY * DAY
    entries = "\n".join(
        f"* {time.strftime('%a %b %d %Y', time.gmtime(now - age * DAY))} A <a@example.invalid> - 1-1\n- changed\n"
        for age in range(2, 1095, every)
    )
    return forge.package(
        name,
        version=str(version),
        install=f"mkdir -p usr/share/{name} usr/share/doc; head -c {size} /dev/urandom >usr/share/{name}/data;"
        f" echo {version} >usr/share/doc/{name}; {more}",
        files=[f"/usr/share/{name}", f"%doc /usr/share/doc/{name}", *files.split()],
        header="Requires: small-base",
        sections=f"%changelog\n{entries}",
    )


@pytest.fixture(scope="module")
def family(made: Forge, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A repository with what is large and seldom changes, what is small and often does, and a folder that one package
    owns and another one uses; the same file is in two of them."""
    products = small_products(tmp_path_factory.mktemp("auto") / "it", made)
    same = "mkdir -p usr/lib/same; echo same >usr/lib/same/file; touch -d @1700000000 usr/lib/same/file"
    for path in (
        package(made, "library", 3_000_000, 1000),
        package(made, "certificates", 150_000, 40, more=same, files="/usr/lib/same/file"),
        package(made, "zones", 100_000, 21),
        package(made, "owner", 900_000, 300, more="mkdir -m 0750 usr/share/odd", files="/usr/share/odd"),
        package(made, "guest", 50_000, 15, more="mkdir usr/share/odd; echo >usr/share/odd/f", files="/usr/share/odd/f"),
        package(made, "tool", 700_000, 90, more=same, files="/usr/lib/same/file"),
    ):
        shutil.copy(path, products.folder / "repository")
    subprocess.run(["createrepo_c", "--quiet", products.folder / "repository"], check=True)
    return Family(products.folder, products.build_env)


def product(at_most: int = 4, *, packages: str = PACKAGES, without: str = "") -> str:
    return (
        PLATFORM
        + RUNS
        + (f"layers: [{{name: product, packages: {packages}, auto: {{at-most: {at_most}}}, without: [{without}]}}]\n")
    )


def layers_of(order: BuildOptions) -> dict[str, str]:
    """Package → layer, as the lock says."""
    lock = read_lock(lock_path(order.recipe))
    assert lock is not None
    return {one.package.nevra.name: one.layer for one in lock.sections[0].resolution.chosen}


def layers(built: BuildResult) -> dict[str, str]:
    """Layer → digest of its blob."""
    return {layer.name: str(layer.blob.digest) for layer in built.image.layers}


def test_the_days_of_a_changelog_are_read_from_the_header(made: Forge) -> None:
    path = package(made, "days", 10, 500)
    assert read_change_days(path) == (TODAY - 1002, TODAY - 502, TODAY - 2)
    without = made.package("silent", install="mkdir -p usr; touch usr/x", files=["/usr/x"])
    assert TODAY <= read_change_days(without)[0] <= int(time.time()) // DAY


def test_the_image_is_the_same_but_in_several_layers(family: Family) -> None:
    whole = family.build("whole", product().replace("auto: {at-most: 4}", "auto: false"))
    order = family.write("parts", product())
    built = build(order, family.build_env)
    names = [layer.name for layer in built.image.layers]
    assert names == ["product-1", "product-2", "product-3", "product-4", "state"]
    assert [layer.name for layer in whole.image.layers] == ["product", "state"]
    assert _without_times(family, built) == _without_times(family, whole)
    placed = layers_of(order)
    for layer in built.image.layers[:-1]:
        inside = {nevra.rsplit("-", 2)[0] for nevra in layer.contents}
        assert inside == {name for name, where in placed.items() if where == layer.name}
    assert placed["library"] == "product-1"
    assert placed["library"] not in {placed[name] for name in ("certificates", "zones", "guest", "tool")}


def _without_times(family: Family, built: BuildResult) -> dict[str, object]:
    """All that stands in an image; times of directories are those of their layers, and rpm's database has the order."""
    return {
        path: replace(found, mtime=0) if found.kind == "d" else found
        for path, found in family.tree(built).items()
        if "rpmdb" not in path
    }


def test_a_second_build_finds_the_lock_fresh_and_every_layer_made(family: Family) -> None:
    order = family.write("again", product())
    first = build(order, family.build_env)
    again = build(replace(order, mode=LockMode.LOCKED), family.build_env)
    assert first.locked.wrote and not again.locked.wrote
    assert again.image.digest == first.image.digest and set(again.reused) == layers(first).keys()
    upgraded = build(replace(order, mode=LockMode.UPGRADE), family.build_env)
    assert not upgraded.locked.wrote, "nothing changed, so nothing may move"


def test_another_number_of_layers_makes_the_lock_stale(family: Family) -> None:
    order = family.write("stale", product(4))
    build(order, family.build_env)
    order = family.write("stale", product(2))
    with pytest.raises(ResolutionError, match="the requested packages changed"):
        build(replace(order, mode=LockMode.LOCKED), family.build_env)
    fewer = layers(build(order, family.build_env))
    assert len(fewer) == 3 and fewer.keys() <= {*(f"product-{number}" for number in range(1, 5)), "state"}
    order = family.write("stale", product(2).replace("auto: {at-most: 2}", "auto: false"))
    assert set(layers(build(order, family.build_env))) == {"product", "state"}


def test_an_update_is_a_new_layer_for_its_source_and_a_new_state_layer(family: Family, made: Forge) -> None:
    order = family.write("updated", product())
    before = build(order, family.build_env)
    placed = layers_of(order)
    update = package(made, "zones", 100_000, 21, version=2)
    try:
        shutil.copy(update, family.folder / "repository")
        subprocess.run(["createrepo_c", "--quiet", family.folder / "repository"], check=True)
        after = build(replace(order, mode=LockMode.UPGRADE), family.build_env)
    finally:
        (family.folder / "repository" / update.name).unlink()
        subprocess.run(["createrepo_c", "--quiet", family.folder / "repository"], check=True)
    assert layers_of(order) == placed
    changed = {name for name, digest in layers(after).items() if layers(before)[name] != digest}
    assert changed == {placed["zones"], "state"}


def test_a_block_that_is_included_comes_out_the_same_in_all_products(family: Family) -> None:
    family.write("base", BASE)
    base = family.build("base", BASE)
    found: list[dict[str, str]] = []
    for name, more in (("one", "[tool]"), ("two", "[owner, guest]"), ("three", "[owner, tool]")):
        text = f"include: [base.yaml]\nlayers: [{{name: product, packages: {more}, auto: {{at-most: 2}}}}]\n"
        found.append(layers(family.build(name, text)))
    shared = {name: digest for name, digest in layers(base).items() if name != "state"}
    assert set(shared) == {"base-1", "base-2", "base-3"}
    assert all(shared.items() <= each.items() for each in found)


def test_a_new_product_follows_the_lock_of_the_recipe_that_it_includes(family: Family) -> None:
    """Though another grouping would be chosen for it: what others have need not be downloaded."""
    order = family.write("elder", BASE)
    build(order, family.build_env)
    path = lock_path(order.recipe)
    text = path.read_text()
    library, zones = layers_of(order)["library"], layers_of(order)["zones"]
    swapped = [
        line.replace(f'layer = "{zones}"', f'layer = "{library}"') if "zones-" in line else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(swapped) + "\n")
    assert layers_of(order)["zones"] == library
    child = family.write("younger", "include: [elder.yaml]\nlayers: [{name: product, packages: [tool], auto: true}]\n")
    build(child, family.build_env)
    ours, theirs = layers_of(child), layers_of(order)
    assert theirs.items() <= ours.items() and ours["tool"] == "product-1"


def test_what_a_layer_leaves_out_is_left_out_of_all_that_it_becomes(family: Family) -> None:
    built = family.build("bare", product(without="docs"))
    kept = family.build("full", product())
    documents = {path for path in family.tree(kept) if path.startswith("usr/share/doc/")}
    assert len(documents) == 6 and not documents & family.tree(built).keys()


def test_a_child_groups_what_it_adds_and_leaves_its_parent_alone(family: Family) -> None:
    family.write("parent", BASE.replace("name: base,", "name: ground,"))
    built = family.build(
        "child", "from: parent\nlayers: [{name: own, packages: [library, owner, guest, tool], auto: {at-most: 2}}]\n"
    )
    names = [layer.name for layer in built.image.layers]
    assert names[:4] == ["parent/ground-1", "parent/ground-2", "parent/ground-3", "parent/state"]
    assert names[4:] == ["own-1", "own-2", "state"]
    assert set(_sources(built.image.layers[4:-1])) == {"owner", "guest", "tool"}


def _sources(found: Sequence[object]) -> list[str]:
    return [nevra.rsplit("-", 2)[0] for layer in found for nevra in layer.contents]  # type: ignore[attr-defined]
