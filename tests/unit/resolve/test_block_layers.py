"""The layers of a recipe's layer that says `auto`: their names, and how they follow the lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.digest import Digest
from pipeline.model.lock import LockSection
from pipeline.model.package import Nevra, Package
from pipeline.model.recipe import LayerPlan, Recipe
from pipeline.model.resolution import Chosen, Resolution
from pipeline.resolve import (
    BlockPackage,
    FormerLayers,
    assign_auto_layers,
    auto_layer_names,
    block_package,
    former_layers,
    image_layers,
)

TODAY = 20_000
MB = 1_000_000


def one(name: str, size: int = MB, every: int = 400, source: str = "", version: int = 1) -> BlockPackage:
    """A package that changed so often in three years."""
    days = tuple(range(TODAY - 1095, TODAY, every))
    return BlockPackage(f"{name}-{version}", name, source or name, size, f"{name} {version}", days, TODAY)


def before(residents: Sequence[BlockPackage], placed: dict[str, str]) -> FormerLayers:
    return {each.name: (placed[each.key], each.content) for each in residents}


SOME = [one("data", 30 * MB), one("libc", 5 * MB, 90), one("libc-extra", MB, 90, "libc"), one("zones", MB, 25)]


def test_layers_are_called_after_the_block_and_packages_of_one_source_stay_together() -> None:
    placed = assign_auto_layers("base", SOME, 3)
    assert set(placed.values()) == {"base-1", "base-2", "base-3"}
    assert placed["libc-1"] == placed["libc-extra-1"]
    assert placed["data-1"] == "base-1" and placed["zones-1"] == "base-3"


def test_an_update_changes_the_layer_of_its_source_alone() -> None:
    former = before(SOME, assign_auto_layers("base", SOME, 3))
    updated = [
        replace(each, key=f"{each.name}-2", content=f"{each.name} 2") if each.name == "zones" else each for each in SOME
    ]
    placed = assign_auto_layers("base", updated, 3, former)
    assert {each.name: placed[each.key] for each in updated} == {name: layer for name, (layer, _) in former.items()}


def test_what_is_as_it_was_stays_where_it_was_whatever_would_be_best() -> None:
    """The same packages: nobody gains from another grouping tonight, and a lock that changes for nothing is noise."""
    former = {"data": ("base-7", "data 1"), "libc": ("base-2", "libc 1"), "zones": ("base-7", "zones 1")}
    former["libc-extra"] = ("base-7", "libc-extra 1")
    placed = assign_auto_layers("base", SOME, 3, former)
    assert placed == {"data-1": "base-7", "libc-1": "base-2", "libc-extra-1": "base-7", "zones-1": "base-7"}


def test_a_layer_keeps_its_name_and_a_new_one_gets_the_first_that_is_free() -> None:
    former = {"data": ("base-4", "data 1"), "zones": ("base-2", "zones 1")}
    placed = assign_auto_layers("base", SOME, 3, former)
    assert (placed["data-1"], placed["zones-1"], placed["libc-1"]) == ("base-4", "base-2", "base-1")


def test_fewer_layers_than_there_were() -> None:
    former = before(SOME, assign_auto_layers("base", SOME, 3))
    assert len(set(assign_auto_layers("base", SOME, 2, former).values())) == 2


@given(st.lists(st.sampled_from("abcdefghij"), unique=True), st.lists(st.sampled_from("abcdefghij"), unique=True))
def test_all_packages_have_a_layer_whatever_was_there(names: list[str], old: list[str]) -> None:
    residents = [
        one(name, MB * (1 + ord(name) % 5), 20 * (1 + ord(name) % 7), version=1 + ord(name) % 2) for name in names
    ]
    earlier = [one(name, source="abc"[ord(name) % 3]) for name in old]
    placed = assign_auto_layers("b", residents, 3, before(earlier, assign_auto_layers("b", earlier, 4)))
    assert placed.keys() == {each.key for each in residents}
    assert (auto_layer_names("b", placed.values()) and len(set(placed.values())) <= 3) or not residents


def test_an_empty_block_has_no_layer() -> None:
    assert assign_auto_layers("base", [], 8) == {}
    assert assign_auto_layers("base", [], 8, {"gone": ("base-1", "gone 1")}) == {}


def test_layers_of_a_block_are_in_the_order_of_their_numbers() -> None:
    names = ["base-10", "base-9", "base", "base-x", "base-1-2", "other-3", "base-9"]
    assert auto_layer_names("base", names) == ("base-9", "base-10")


def package(name: str, source: str = "", arch: str = "x86_64") -> Package:
    return Package(Nevra(name, 0, "1", "2", arch), Digest.of(name.encode()), 7, "r", "l", 86_400 * 3 + 5, source)


def test_a_package_of_a_block() -> None:
    made = block_package(package("ncurses-libs", "ncurses-6.5-1.fc41.src.rpm"), [1, 2])
    assert (made.key, made.name, made.source) == ("ncurses-libs-1-2.x86_64", "ncurses-libs.x86_64", "ncurses")
    assert (made.size, made.days, made.built) == (7, (1, 2), 3)
    assert block_package(package("local"), []).source == "local"


def section(*placed: tuple[Package, str]) -> LockSection:
    chosen = tuple(Chosen(each, layer, ()) for each, layer in placed)
    return LockSection(Resolution("p", "x86_64", chosen, tuple(str(c.package.nevra) for c in chosen)), (), 0)


def test_what_a_lock_says_of_a_block() -> None:
    a, b, c = package("a"), package("b", arch="noarch"), package("c")
    locked = section((a, "base-1"), (b, "base-12"), (c, "product-1"))
    assert former_layers("base", locked) == {
        "a.x86_64": ("base-1", a.checksum.hex),
        "b.noarch": ("base-12", b.checksum.hex),
    }
    assert former_layers("base", None) == former_layers("none", locked) == {}


def test_the_layers_of_an_image_are_those_of_the_recipe_with_blocks_taken_apart() -> None:
    plans = (
        LayerPlan("base", (), at_most=9),
        LayerPlan("middle", (), man=False),
        LayerPlan("product", (), docs=False, at_most=4),
        LayerPlan("empty", (), at_most=4),
    )
    recipe = Recipe("r", Path("r.yaml"), "1", "p", ("x86_64",), plans)
    locked = section(
        (package("a"), "product-2"), (package("b"), "base-10"), (package("c"), "base-9"), (package("d"), "product-1")
    )
    layers = image_layers(recipe, locked.resolution)
    assert [name for name, _ in layers] == ["base-9", "base-10", "middle", "product-1", "product-2"]
    assert [plan.docs for _, plan in layers] == [True, True, True, False, False]
