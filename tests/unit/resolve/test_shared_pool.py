"""Recipes that are solved one after the other in one pool, as a night does: each as if it were alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from pipeline.errors import ResolutionError
from pipeline.resolve import PackagePool, open_pool, solve
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm


def stream_of_mod(version: int) -> str:
    return f"""---
document: modulemd
version: 2
data:
  name: m
  stream: "{version}"
  version: 1
  context: c0
  arch: x86_64
  dependencies:
    - requires:
        platform: [el9]
  artifacts:
    rpms: [mod-0:{version}-1.noarch]
...
"""


COMPS = """<?xml version="1.0"?><comps><group><id>g</id><name>G</name><packagelist>
<packagereq type="conditional" requires="/opt/tool">plain</packagereq>
<packagereq type="mandatory">tool</packagereq></packagelist></group></comps>"""


def test_files_that_only_lists_have_are_found_whatever_was_loaded_before(tmp_path: Path) -> None:
    world = World(tmp_path).add(
        "r",
        Rpm("plain"),
        Rpm("tool", files=("/opt/tool", "/usr/bin/tool")),
        Rpm("tools", provides=("/opt/tools",)),
        Rpm("also", provides=("/opt/tool",)),
        Rpm("user", requires=("/opt/tool", "/opt/deep", "/usr/bin/tool")),  # So the index of provides has them.
        Rpm("deep", files=("/opt/deep",)),
        Rpm("deeper", requires=("/opt/deep",)),
        comps=COMPS,
    )
    wanted: dict[tuple[str, ...], list[str]] = {
        ("(no or /opt/tool)",): ["also"],  # As of dnf: a package that provides it comes before one that has it.
        ("(/opt/tool without also)",): ["tool"],
        ("(plain if /opt/deep)", "deep"): ["deep", "plain"],
        ("(plain and deeper)",): ["deep", "deeper", "plain"],
        ("/opt/to*",): ["also"],
        ("/opt/tools",): ["tools"],
        ("/opt/d*",): ["deep"],
        ("*/deep",): ["deep"],
        ("*opt/t*",): ["also", "tool", "tools"],
        ("?opt/deep",): ["deep"],
        ("@g",): ["plain", "tool"],
        ("/usr/bin/t*",): ["tool"],
        ("*lain",): ["plain"],
    }
    opened = world.opened()

    def solved(pool: PackagePool | None, texts: tuple[str, ...]) -> object:
        recipe = world.recipe(list(texts))
        try:
            section = solve(recipe, world.platform, "x86_64", opened, store=world.store, package_pool=pool)
        except ResolutionError as error:
            return str(error)
        return [one.package.nevra.name for one in section.resolution.chosen]

    assert {texts: solved(None, texts) for texts in wanted} == wanted
    for texts, names in wanted.items():
        pool = open_pool("x86_64", opened, store=world.store)
        assert solved(pool, texts) == names, texts
        loaded = open_pool("x86_64", opened, store=world.store)
        assert [solved(loaded, ("deeper",)), solved(loaded, texts)] == [["deep", "deeper"], names], texts
        assert loaded.has_filelists


@pytest.mark.parametrize("text", ["plain", "*lain", "/usr/bin/t*", "/etc/*", "(plain or /usr/bin/tool)", "plain = 1"])
def test_file_lists_are_not_loaded_for_what_primary_metadata_answers(tmp_path: Path, text: str) -> None:
    world = World(tmp_path).add("r", Rpm("plain", files=("/etc/conf",)), Rpm("tool", files=("/usr/bin/tool",)))
    opened = world.opened()
    pool = open_pool("x86_64", opened, store=world.store)
    solve(world.recipe([text]), world.platform, "x86_64", opened, store=world.store, package_pool=pool)
    assert not pool.has_filelists


def test_in_one_pool_no_recipe_finds_what_another_left(tmp_path: Path) -> None:
    rpms = (
        Rpm("old", "1-1"),
        Rpm("old", "2-1"),
        Rpm("new", provides=("old = 3-1",), obsoletes=("old < 3",)),
        Rpm("app", requires=("old",), recommends=("extra",)),
        Rpm("extra", files=("/opt/extra",)),
        Rpm("extra-new", obsoletes=("extra",)),
        Rpm("file", requires=("/opt/extra",)),
        Rpm("mod", "1-1"),
        Rpm("mod", "9-1"),
        Rpm("mod-new", "1-1", provides=("mod = 99-1",), obsoletes=("mod < 99",)),
    )
    modules = "".join(map(stream_of_mod, (1, 9)))
    world = World(tmp_path).add("r", *rpms, modules=modules)
    world.add("out", Rpm("old", "5-1"), Rpm("outer", obsoletes=("old", "extra")), exclude=("outer", "old"))
    kinds: list[tuple[list[str], dict[str, object]]] = [
        (["old"], {}),
        (["old"], {"excludes": ("new",)}),
        (["old"], {"pins": (("new", "7"),)}),
        (["old"], {"pins": (("old", "1"),), "excludes": ("new",)}),
        (["app", "extra"], {"excludes": ("extra-new", "new")}),
        (["app", "extra"], {"weak_dependencies": True, "excludes": ("app-2",)}),
        (["extra"], {}),
        (["file"], {"excludes": ("extra-new",)}),
        (["mod"], {"modules": ("m:1",), "excludes": ("mod-new",)}),
        (["mod"], {"modules": ("m:9",)}),
        (["mod"], {"modules": ("m:9",), "excludes": ("mod-new",)}),
    ]
    opened = world.opened()

    def solved(pool: PackagePool | None, kind: int) -> object:
        texts, more = kinds[kind]
        try:
            return solve(
                world.recipe(texts, **more), world.platform, "x86_64", opened, store=world.store, package_pool=pool
            ).resolution
        except ResolutionError as error:
            return str(error)

    alone = [solved(None, kind) for kind in range(len(kinds))]
    for first, then in itertools.permutations(range(len(kinds)), 2):
        pool = open_pool("x86_64", opened, store=world.store)
        assert [solved(pool, first), solved(pool, then)] == [alone[first], alone[then]], (kinds[first], kinds[then])
