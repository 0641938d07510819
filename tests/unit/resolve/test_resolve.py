"""Choosing packages from small repositories: what is chosen, in which layer, in which order, and why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.model.signing_key import AcceptedSignature
from pipeline.resolve import explain, open_pool, solve
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- what is chosen ------------------------------------------------------------------------------


def test_requirements_are_followed_and_nothing_else_comes_along(world: World) -> None:
    world.add(
        "r",
        Rpm("a", requires=("b",)),
        Rpm("b", requires=("virtual",)),
        Rpm("c", provides=("virtual",)),
        Rpm("d"),
    )
    assert world.names(["a"]) == ["a-1-1.noarch", "b-1-1.noarch", "c-1-1.noarch"]


def test_the_newest_version_is_chosen_and_a_version_can_be_asked_for(world: World) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("a", "2-1"), Rpm("a", "1:1-1"), Rpm("a", "2~rc1-1"))
    assert world.names(["a"]) == ["a-1:1-1.noarch"]
    assert world.names(["a-2"]) == ["a-2-1.noarch"]
    assert world.names(["a-2~rc1-1"]) == ["a-2~rc1-1.noarch"]
    assert world.names(["a < 2"]) == ["a-2~rc1-1.noarch"]


def test_the_best_is_insisted_on(world: World) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("a", "2-1", requires=("nowhere",)))
    error = refusal(world, ["a"])
    assert error.code == "requirement-missing"
    assert "a-2-1.noarch requires nowhere, which nothing provides" in str(error)


def test_priority_comes_before_version_and_cost_decides_between_equals(world: World) -> None:
    world.add("far", Rpm("a", "1-1"), Rpm("b"), cost=2000)
    world.add("near", Rpm("a", "1-1"), Rpm("b"), cost=10)
    world.add("own", Rpm("a", "0-1"), priority=10)
    found = {one.package.nevra.name: one.package for one in world.solve(["a", "b"]).resolution.chosen}
    assert (found["a"].nevra.version, found["a"].repository) == ("0", "own")
    assert found["b"].repository == "near"


def test_includes_of_a_repository_let_in_what_they_match_and_its_excludes_do_not(world: World) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("b", "1-1"))
    world.add("more", Rpm("a", "2-1"), Rpm("b", "2-1"), Rpm("c"), Rpm("ab"), include=("a*", "c"), exclude=("ab",))
    assert world.names(["a", "b", "c"]) == ["a-2-1.noarch", "b-1-1.noarch", "c-1-1.noarch"]
    assert "only excluded packages match 'ab': ab-1-1.noarch" in str(refusal(world, ["ab"]))


def test_the_native_architecture_is_chosen_unless_another_is_asked_for(world: World) -> None:
    world.add("r", Rpm("a", arch="i686"), Rpm("a", arch="x86_64"), Rpm("b", arch="i686"), Rpm("c", arch="aarch64"))
    assert world.names(["a"]) == ["a-1-1.x86_64"]
    assert world.names(["a.i686", "a.x86_64"]) == ["a-1-1.i686", "a-1-1.x86_64"]
    assert world.names(["b"]) == ["b-1-1.i686"]
    assert refusal(world, ["c"]).problems[0].place == "r.yaml:0.c"


def test_an_obsoleted_package_is_replaced(world: World) -> None:
    world.add("r", Rpm("old"), Rpm("new", provides=("old = 2-1",), obsoletes=("old < 2",)))
    assert world.names(["old"]) == ["new-1-1.noarch"]


def test_paths_that_only_file_lists_know_are_found_when_they_are_needed(world: World) -> None:
    world.add(
        "r",
        Rpm("a", requires=("/usr/share/b/data",)),
        Rpm("b", files=("/usr/share/b/data", "/usr/bin/b")),
        Rpm("c", conflicts=("/usr/share/b/data",)),
        Rpm("d", pre=("/usr/share/b/data",)),
        Rpm("e", requires=("(/usr/share/b/data or nothing)",)),
    )
    for name in "de":
        assert world.names([name]) == ["b-1-1.noarch", f"{name}-1-1.noarch"]
    assert world.names(["a"]) == ["a-1-1.noarch", "b-1-1.noarch"]
    assert world.names(["/usr/share/b/data"]) == ["b-1-1.noarch"]
    assert world.names(["/usr/share/*/data"]) == ["b-1-1.noarch"]
    assert refusal(world, ["b", "c"]).code == "packages-conflict"


def test_file_lists_are_left_alone_when_nothing_needs_them(world: World) -> None:
    unrelated = Rpm("x", requires=("/usr/share/b/data",))
    world.add(
        "r",
        Rpm("a", requires=("/usr/bin/b", "b")),
        Rpm("b", files=("/usr/bin/b", "/usr/share/b/data")),
        unrelated,
    )
    for path in (world.folder / "r" / "repodata").glob("*filelists*"):
        path.unlink()
    assert world.names(["a"]) == ["a-1-1.noarch", "b-1-1.noarch"]


def test_weak_dependencies_are_one_switch(world: World) -> None:
    world.add(
        "r",
        Rpm("a", recommends=("b",)),
        Rpm("b"),
        Rpm("c", supplements=("a",)),
        Rpm("d", supplements=("(a and x)",)),
    )
    assert world.names(["a"]) == ["a-1-1.noarch"]
    assert world.names(["a"], weak_dependencies=True) == ["a-1-1.noarch", "b-1-1.noarch", "c-1-1.noarch"]


def test_excluded_packages_are_never_chosen(world: World) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("a", "2-1"), Rpm("b", provides=("v",)), Rpm("c", provides=("v",)))
    assert world.names(["a", "v"], excludes=("a-2*", "b")) == ["a-1-1.noarch", "c-1-1.noarch"]
    error = refusal(world, ["a"], excludes=("a",))
    assert error.code == "package-missing"
    assert "excluded" in str(error)


@pytest.mark.parametrize("pattern", ["a-2-1.noarch", "a-2*", "a-1:2-1.noarch", "a-1:2*", "a-2", "*-2-1.noarch"])
def test_a_package_with_an_epoch_is_excluded_with_and_without_it(world: World, pattern: str) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("a", "1:2-1"))
    assert world.names(["a"], excludes=(pattern,)) == ["a-1-1.noarch"]
    assert world.names(["a"], excludes=("a-0:2*", "a-2:2*")) == ["a-1:2-1.noarch"]


def test_what_a_repository_excludes_may_come_from_another(world: World) -> None:
    world.add("one", Rpm("a", "2-1"), exclude=("a",)).add("two", Rpm("a", "1-1"))
    assert world.names(["a"]) == ["a-1-1.noarch"]


def test_a_pin_holds_and_does_not_install(world: World) -> None:
    world.add("r", Rpm("a", "1-1"), Rpm("a", "1-2"), Rpm("a", "2-1"), Rpm("b", requires=("a",)), Rpm("c"))
    assert world.names(["b"], pins=(("a", "1"),)) == ["a-1-2.noarch", "b-1-1.noarch"]
    assert world.names(["b"], pins=(("a", "1-1"),)) == ["a-1-1.noarch", "b-1-1.noarch"]
    assert world.names(["c"], pins=(("a", "1"),)) == ["c-1-1.noarch"]
    assert "package 'aa'" in world.solve(["c"], pins=(("aa", "1"),)).resolution.warnings[0]
    error = refusal(world, ["b"], pins=(("a", "3"),))
    assert error.code == "pin-unsatisfied"
    assert "available: 1-1, 1-2, 2-1" in str(error)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("OpenSSL", "did you mean openssl?"),
        ("openssl >= 9", "of openssl there is 3.0-1, 3.5-2"),
        ("openssl-9", "of openssl there is 3.0-1, 3.5-2"),
        ("openssl-3.5-9", "of openssl there is 3.0-1, 3.5-2"),
        ("openssl-lib", "did you mean openssl-libs or openssl?"),
        ("openssl>=9", "put spaces around the comparison: 'openssl >= 3'"),
        ("opensssl >= 9", "did you mean openssl?"),
        ("nothing-like-it", "check the name, or add the repository that provides it"),
        ("/usr/bin/9", "check the name, or add the repository that provides it"),
    ],
)
def test_what_no_package_matches_has_a_way_out(world: World, asked: str, hint: str) -> None:
    world.add("r", Rpm("openssl", "3.0-1"), Rpm("openssl", "3.5-2"), Rpm("openssl-libs", "3.5-2"))
    error = refusal(world, [asked])
    assert (error.code, error.problems[0].hint) == ("package-missing", hint)


def test_weaker_signatures_that_a_repository_accepts_stand_in_the_lock(world: World) -> None:
    world.add("new", Rpm("a")).add("old", Rpm("b"), accept=tuple(AcceptedSignature))
    assert world.solve(["a"]).resolution.warnings == (
        "repository 'old' accepts weaker signatures of packages: legacy-header-payload, sha1",
    )


def test_what_is_assumed_is_not_installed_and_is_reported(world: World) -> None:
    world.add("r", Rpm("a", requires=("systemd >= 250", "/usr/bin/systemctl", "b")), Rpm("b"), Rpm("systemd", "260-1"))
    section = world.solve(["a"], assume_installed=("systemd", "/usr/bin/systemctl", "unused"))
    assert [one.package.nevra.name for one in section.resolution.chosen] == ["a", "b"]
    assert section.resolution.assumed == ("/usr/bin/systemctl", "systemd >= 250")
    assert [line for line in section.resolution.warnings if "unused" in line]
    assert len(section.resolution.warnings) == 1


def test_rich_dependencies_keep_their_meaning(world: World) -> None:
    world.add("r", Rpm("a", requires=("(b if c)", "(d or e)")), *(Rpm(name) for name in "bcde"))
    assert world.names(["a", "e"]) == ["a-1-1.noarch", "e-1-1.noarch"]
    assert world.names(["a", "c", "e"]) == ["a-1-1.noarch", "b-1-1.noarch", "c-1-1.noarch", "e-1-1.noarch"]
    assert world.names(["(b and c)"]) == ["b-1-1.noarch", "c-1-1.noarch"]


def test_globs_ask_for_every_name(world: World) -> None:
    world.add("r", Rpm("lib-a"), Rpm("lib-b", "1-1"), Rpm("lib-b", "2-1"), Rpm("other"))
    assert world.names(["lib-*"]) == ["lib-a-1-1.noarch", "lib-b-2-1.noarch"]


# Measured with dnf 4.14.
@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("l.*", ["l-1-1.x86_64", "l-2-1.i686"]),
        ("l.[ix]*", ["l-1-1.x86_64", "l-2-1.i686"]),
        ("l-1-1.*", ["l-1-1.i686", "l-1-1.x86_64"]),
        ("?-1-1.*", ["k-1-1.i686", "k-1-1.x86_64", "l-1-1.i686", "l-1-1.x86_64"]),
        ("l.i?86", ["l-2-1.i686"]),
        ("l*", ["l-1-1.x86_64"]),
        ("l-1*", ["l-1-1.x86_64"]),
        ("k*.x86_64", ["k-1-1.x86_64"]),
    ],
)
def test_globs_for_the_architecture_ask_for_every_architecture(world: World, asked: str, names: list[str]) -> None:
    both = [Rpm(name, "1-1", arch) for name in "kl" for arch in ("x86_64", "i686")]
    world.add("r", *both, Rpm("l", "2-1", "i686"))
    assert world.names([asked]) == names


# --- layers, order, reasons ------------------------------------------------------------------------


def test_a_package_belongs_to_the_lowest_layer_that_reaches_it(world: World) -> None:
    world.add(
        "r",
        Rpm("base", requires=("libc", "shell")),
        Rpm("glibc", provides=("libc",)),
        Rpm("bash", provides=("shell",)),
        Rpm("zsh", provides=("shell",)),
        Rpm("product", requires=("libc", "extra", "zsh")),
        Rpm("extra", requires=("base",)),
    )
    section = world.solve(["base", "bash"], ["product"])
    layers = {one.package.nevra.name: one.layer for one in section.resolution.chosen}
    assert layers == {
        "base": "layer0", "bash": "layer0", "glibc": "layer0",
        "extra": "layer1", "product": "layer1", "zsh": "layer1",
    }  # fmt: skip


def test_what_a_product_adds_does_not_creep_into_the_base(world: World) -> None:
    """`base` needs any editor; that the product brings `zile` does not put `zile` into the base."""
    world.add(
        "r",
        Rpm("base", requires=("editor", "vim")),
        Rpm("vim", provides=("editor",)),
        Rpm("product", requires=("zile",)),
        Rpm("zile", provides=("editor",)),
    )
    section = world.solve(["base"], ["product"])
    assert [one.nevra.name for one in section.resolution.layer("layer0")] == ["base", "vim"]


def test_weak_dependencies_stand_in_the_layer_of_what_they_belong_to(world: World) -> None:
    world.add(
        "r",
        Rpm("a", recommends=("rec",)),
        Rpm("rec"),
        Rpm("b"),
        Rpm("sup", supplements=("b",), requires=("dep",)),
        Rpm("dep"),
    )
    section = world.solve(["a"], ["b"], weak_dependencies=True)
    layers = {one.package.nevra.name: one.layer for one in section.resolution.chosen}
    assert layers == {"a": "layer0", "rec": "layer0", "b": "layer1", "sup": "layer1", "dep": "layer1"}
    reasons = {one.package.nevra.name: one.reasons[0] for one in section.resolution.chosen}
    assert (reasons["rec"].kind, reasons["sup"].kind, reasons["sup"].by) == (
        "recommends",
        "supplements",
        "b-1-1.noarch",
    )


def test_what_is_needed_comes_first(world: World) -> None:
    world.add(
        "r",
        Rpm("app", requires=("libapp",), pre=("shadow",)),
        Rpm("libapp", requires=("zlibc",)),
        Rpm("shadow", requires=("zlibc",)),
        Rpm("zlibc", requires=("common",)),
        Rpm("common", pre=("zlibc",)),
    )
    order = [nevra.split("-")[0] for nevra in world.solve(["app"]).resolution.order]
    # A circle: common needs zlibc for its scriptlets, zlibc needs common only some time.
    assert order == ["zlibc", "common", "libapp", "shadow", "app"]


@pytest.mark.parametrize("name", ["app", "app.noarch", "app-2-1.noarch", "app-1:2-1.noarch", "app-2"])
def test_explain_finds_a_package_with_or_without_its_epoch(world: World, name: str) -> None:
    world.add("r", Rpm("app", "1:2-1"))
    chosen = world.solve(["app"]).resolution.chosen
    assert explain(chosen, name).startswith("app-1:2-1.noarch (layer layer0")
    with pytest.raises(UsageError, match="not in the image"):
        explain(chosen, "app-0:2-1.noarch")


def test_explain_tells_chains_from_the_recipe(world: World) -> None:
    world.add(
        "r",
        Rpm("app", requires=("lib",)),
        Rpm("lib", requires=("libc.so",)),
        Rpm("glibc", provides=("libc.so",)),
    )
    resolution = world.solve(["app"]).resolution
    assert explain(resolution.chosen, "glibc").splitlines() == [
        "glibc-1-1.noarch (layer layer0, repository r)",
        "  lib-1-1.noarch requires libc.so",
        "    lib: app-1-1.noarch requires lib",
        "    app: the recipe asks for 'app'",
    ]
    assert "the recipe asks for 'app'" in explain(resolution.chosen, "app-1-1.noarch")
    with pytest.raises(UsageError, match="not in the image") as caught:
        explain(resolution.chosen, "glib")
    assert "glibc" in str(caught.value)


def test_the_build_time_is_the_newest_of_the_packages(world: World) -> None:
    world.add("r", Rpm("a", build_time=10), Rpm("b", build_time=30), Rpm("c", build_time=50))
    assert world.solve(["a", "b"]).build_time == 30


# --- the same every time ---------------------------------------------------------------------------


def test_kept_metadata_gives_the_same_as_fresh_metadata(world: World) -> None:
    world.add(
        "r",
        Rpm("a", requires=("/opt/b", "v")),
        Rpm("b", files=("/opt/b",)),
        Rpm("c", provides=("v",)),
        Rpm("d", provides=("v",)),
    )
    first = world.solve(["a"])
    assert world.solve(["a"]) == first
    for path in (world.folder / "r" / "repodata").iterdir():
        if path.name != "repomd.xml":
            path.unlink()
    assert world.solve(["a"]) == first


def test_a_damaged_kept_file_is_made_again(world: World) -> None:
    world.add("r", Rpm("a"))
    first = world.solve(["a"])
    for path in (world.store.root / "blobs").iterdir():
        if path.read_bytes()[:4] == b"SOLV":
            path.write_bytes(path.read_bytes()[:-20])
    assert world.solve(["a"]) == first


def test_the_result_depends_on_neither_hash_order_nor_locale_nor_folder(world: World, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.resolve_world import World\n"
        "from tests.support.rpmmd import Rpm\n"
        "from pipeline.resolve import format_lock; from pipeline.model.lock import Lock\n"
        "w = World(Path(sys.argv[1]))\n"
        "w.add('r', *(Rpm(f'p{i}', requires=(f'p{(i * 7 + 3) % 40}', f'v{i % 5}'), provides=(f'v{i % 9}',))"
        " for i in range(40)))\n"
        "print(format_lock(Lock('r', (w.solve(['p1'], ['p2', 'v3']),))))\n"
    )
    told = set()
    for number, environment in enumerate(
        ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Tokyo"})
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        told.add(run.stdout)
    assert len(told) == 1
    assert "p1-1-1" in told.pop()


def test_all_that_obsolete_one_are_found_by_name_by_wildcard_and_beside_many_others(world: World) -> None:
    others = [Rpm(f"other{number}") for number in range(600)]
    world.add(
        "r",
        Rpm("old"),
        Rpm("older"),
        Rpm("kept", obsoletes=("unknown", "old > 2")),
        Rpm("new", provides=("old = 2-1", "older = 2-1"), obsoletes=("old < 2", "older")),
        Rpm("fresh", provides=("thing = 1-1",)),
        *others,
    )
    for asked in (["old"], ["old*"], ["old", "older"], ["ol?", "thing >= 1"]):
        assert [one for one in world.names(asked) if one != "fresh-1-1.noarch"] == ["new-1-1.noarch"]
    many = world.names([*(one.name for one in others), "o*"])
    assert len(many) == 601 and "new-1-1.noarch" in many


def test_in_one_pool_each_recipe_finds_what_it_asks_for(world: World) -> None:
    world.add("r", Rpm("a-b", "1-1"), Rpm("a", "1-1", provides=("p = 3",)), Rpm("c", obsoletes=("a-b",)))
    opened = world.opened()
    pool = open_pool("x86_64", opened, store=world.store)
    for asked, chosen in (("a-1", "a"), ("a-b", "a-b"), ("p = 3", "a"), ("a-b-1-1.noarch", "a-b"), ("c", "c")):
        solved = solve(
            world.recipe([asked]), world.platform, "x86_64", opened, store=world.store, package_pool=pool
        ).resolution
        alone = world.solve([asked]).resolution
        assert [one.package.nevra.name for one in solved.chosen] in ([chosen], ["c"]) and solved == alone


def test_a_resolution_from_kept_metadata_imports_no_more_than_it_uses(world: World) -> None:
    world.add("r", Rpm("a"))
    world.names(["a"])
    program = """
import sys
from pathlib import Path
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.recipe import LayerPlan, Recipe, Request
from pipeline.repos import open_repositories
from pipeline.resolve import solve
from pipeline.store import Store
store = Store.open(Path(sys.argv[1]))
platform = Platform("p", (PackageRepository("r", baseurls=(sys.argv[2],)),))
plan = Recipe("r", Path("/r.yaml"), "1", "p", ("x86_64",), (LayerPlan("l", (Request("a", ""),)),))
opened = open_repositories(platform, "x86_64", variables={}, store=store)
assert len(solve(plan, platform, "x86_64", opened, store=store).resolution.chosen) == 1
print(*sys.modules)
"""
    argv = [sys.executable, "-c", program, str(world.store.root), (world.folder / "r").as_uri()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = set(subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split())
    assert not sorted(
        loaded
        & {
            *("subprocess", "pydantic", "yaml", "jinja2", "httpx", "ssl", "importlib.metadata", "ctypes"),
            *("pipeline.resolve.metadata_conversion", "pipeline.resolve.modules"),
        }
    )
