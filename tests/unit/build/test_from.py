"""Building from another recipe's image: loading, choosing, locking. Its layers are in `test_from_layers`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import ResolutionError
from pipeline.model.lock import Lock, LockedParent, LockSection
from pipeline.model.parent_image import (
    ParentImage,
)
from pipeline.model.resolution import Resolution
from pipeline.recipes import load_recipe
from pipeline.resolve import (
    compare_sections,
    explain,
    format_lock,
    parse_lock,
    resolution_inputs,
    solve,
    stale_reasons,
)
from tests.support.parent_images import file, header, parent
from tests.support.recipe_folder import refused, write
from tests.support.resolve_world import World
from tests.support.rpmmd import Rpm

# --- loading -----------------------------------------------------------------------------------------------

BASE = (
    "name: base\nversion: '1'\nplatform: p\narchitectures: [x86_64, aarch64]\nlayers: [{name: base, packages: [a]}]\n"
)
PROGRAM = "image: {entrypoint: [/a]}\n"
CHILD = "name: child\nversion: '1'\nfrom: %s\n"
SMOKE = "smoke: {checks: [{name: a, log: a}]}\n"


def test_a_child_has_its_parents_platform_and_needs_no_layer_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, BASE + PROGRAM, "base.yaml")
    recipe = load_recipe(write(tmp_path, CHILD % "base" + SMOKE))
    assert recipe.parent is not None and recipe.parent.name == "base"
    assert (recipe.platform, recipe.architectures, recipe.layers) == ("p", ("x86_64", "aarch64"), ())
    assert recipe.sources == (tmp_path / "demo.yaml",)


def test_a_parent_is_named_by_its_path_and_by_an_included_recipe_too(tmp_path: Path) -> None:
    write(tmp_path, BASE, "lower/base.yml")
    write(tmp_path, "from: base\n", "lower/part.yaml")
    named = load_recipe(write(tmp_path, CHILD % "lower/base.yml"))
    assert named.parent is not None and named.parent.path == tmp_path / "lower/base.yml"
    included = load_recipe(write(tmp_path, "name: c\nversion: '1'\ninclude: [lower/part.yaml]\n"))
    assert included.parent is not None and included.parent.path == tmp_path / "lower/base.yml"


@pytest.mark.parametrize(
    ("files", "code", "place", "said"),
    [
        ({"demo": CHILD % "bsae"}, "from-missing", "demo.yaml:3: from", "'bsae' not found"),
        ({"demo": CHILD % "/base"}, "from-absolute", "demo.yaml:3: from", "absolute"),
        ({"demo": CHILD % "demo"}, "from-cycle", "demo.yaml:3: from", "demo.yaml → demo.yaml"),
        (
            {"demo": CHILD % "second", "second": CHILD.replace("child", "second") % "demo"},
            "from-cycle",
            "second.yaml:3: from",
            "demo.yaml → second.yaml → demo.yaml",
        ),
        ({"demo": CHILD % "base" + "platform: q\n"}, "platform-differs", "demo.yaml:4: platform", "'base'"),
        (
            {"demo": CHILD % "base" + "architectures: [s390x]\n"},
            "architectures-differ",
            "demo.yaml:4: architectures",
            "s390x",
        ),
        ({"demo": CHILD.replace("child", "base") % "base"}, "name-of-parent", "demo.yaml:1: name", "'base' is also"),
        (
            {"demo": CHILD.replace("child", "base") % "second", "second": CHILD % "base"},
            "name-of-parent",
            "demo.yaml:1: name",
            "'base' is also",
        ),
        ({"demo": CHILD % "worse", "worse": BASE + "colour: red\n"}, "key-unknown", "worse.yaml:6: colour", "colour"),
        ({"demo": CHILD % "{image: layout}"}, "type-wrong", "demo.yaml:3: from", "text is expected"),
        ({"demo": CHILD % "base" + SMOKE}, "image-without-program", "demo.yaml", "has checks, but no entrypoint"),
    ],
)
def test_what_is_wrong_with_a_parent_is_told_with_its_place(
    files: dict[str, str], code: str, place: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path, BASE, "base.yaml")
    for name, text in files.items():
        write(tmp_path, text, f"{name}.yaml")
    (problem,) = refused(tmp_path / "demo.yaml")
    assert problem.code == code and said in problem.message
    assert (problem.place or "").startswith(place)


def test_recipes_are_built_from_one_another_only_so_deep(tmp_path: Path) -> None:
    write(tmp_path, BASE, "r0.yaml")
    for number in range(1, 10):
        write(tmp_path, CHILD.replace("child", f"c{number}") % f"r{number - 1}", f"r{number}.yaml")
    assert load_recipe(tmp_path / "r8.yaml").parent is not None
    assert {problem.code for problem in refused(tmp_path / "r9.yaml")} == {"from-too-deep"}


# --- choosing ----------------------------------------------------------------------------------------------


def added(world: World, below: ParentImage, *texts: str, **more: object) -> LockSection:
    base = replace(world.recipe([]), name="base", path=world.folder / "base.yaml")
    recipe = world.recipe(list(texts), parent=base, **more)
    return solve(recipe, world.platform, "x86_64", world.opened(), store=world.store, parent=below)


def refusal(world: World, below: ParentImage, *texts: str, **more: object) -> ResolutionError:
    with pytest.raises(ResolutionError) as caught:
        added(world, below, *texts, **more)
    return caught.value


def names(section: LockSection) -> list[str]:
    return [str(one.package.nevra) for one in section.resolution.chosen]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_only_what_the_parent_lacks_is_chosen(world: World) -> None:
    world.add("r", Rpm("a", requires=("b", "/opt/tool", "virtual", "c")), Rpm("b", "2-1"), Rpm("c"), Rpm("tool", "9-1"))
    below = parent(header("b"), header("tool", "1-1", file("/opt/tool")), header("other", provides=("virtual",)))
    section = added(world, below, "a")
    assert names(section) == ["a-1-1.noarch", "c-1-1.noarch"]
    assert section.resolution.order == ("c-1-1.noarch", "a-1-1.noarch")
    assert section.parent == LockedParent("base", below.digest, below.config)
    assert section.build_time == 1_800_000_000


def test_a_request_that_the_parent_satisfies_asks_for_nothing_however_old_it_is(world: World) -> None:
    world.add("r", Rpm("b", "2-1"), Rpm("bb", "1-1"))
    assert names(added(world, parent(header("b")), "b")) == []
    assert names(added(world, parent(header("b")), "b*")) == ["bb-1-1.noarch"]
    assert names(added(world, parent(header("b")), "b = 1-1")) == []


@pytest.mark.parametrize(
    ("wanted", "said", "hint"),
    [
        ("b >= 2", "b-1-1.noarch and b-2-1.noarch cannot both be installed", "'b >= 2-1'"),
        ("needs", "needs-1-1.noarch requires b >= 2", "'b >= 2-1'"),
        ("enemy", "enemy-1-1.noarch conflicts with b", "without b-1-1.noarch"),
        ("heir", "heir-1-1.noarch obsoletes b < 3, which is b-1-1.noarch", "without b-1-1.noarch"),
    ],
)
def test_what_would_change_the_parent_says_what_to_rebuild_it_with(
    wanted: str, said: str, hint: str, world: World
) -> None:
    world.add(
        "r",
        Rpm("b", "2-1"),
        Rpm("needs", requires=("b >= 2",)),
        Rpm("enemy", conflicts=("b",)),
        Rpm("heir", obsoletes=("b < 3",)),
    )
    error = refusal(world, parent(header("b")), wanted)
    assert error.code == "parent-fixed"
    assert "on top of the parent image 'base'" in str(error) and said in str(error)
    assert hint in (error.problems[0].hint or "")
    assert error.problems[0].place == f"r.yaml:0.{wanted}"


def test_excludes_and_pins_do_not_reach_into_the_parent(world: World) -> None:
    world.add("r", Rpm("a", requires=("b",)), Rpm("b", "2-1"))
    assert names(added(world, parent(header("b")), "a", excludes=("b",))) == ["a-1-1.noarch"]
    assert names(added(world, parent(header("b")), "a", pins=(("b", "1"),))) == ["a-1-1.noarch"]
    error = refusal(world, parent(header("b")), "a", pins=(("b", "2"),))
    assert error.code == "parent-fixed" and "has b-1-1.noarch" in str(error)


def test_what_the_parent_took_on_trust_stays_so_and_more_can_be(world: World) -> None:
    world.add("r", Rpm("a", requires=("b", "systemd")), Rpm("c", requires=("systemd",)))
    below = parent(header("b", requires=("nowhere",)))
    section = added(world, below, "a", assume_installed=("systemd",))
    assert names(section) == ["a-1-1.noarch"] and section.resolution.assumed == ("systemd",)
    assert refusal(world, below, "c").code == "requirement-missing"


def test_explain_tells_of_the_parent(world: World) -> None:
    world.add("r", Rpm("a", requires=("b",)))
    below = parent(header("b"))
    every = [*added(world, below, "a").resolution.chosen, *(one.chosen for one in below.packages)]
    assert explain(every, "b").splitlines() == [
        "b-1-1.noarch (layer base/base, repository r)",
        "  from the parent image 'base':",
        "  the recipe 'base' asks for 'b'",
    ]
    assert explain(every, "a").splitlines()[1] == "  the recipe asks for 'a'"


# --- the lock ----------------------------------------------------------------------------------------------


def section(below: Digest | None) -> LockSection:
    return LockSection(
        Resolution("p", "x86_64", (), ()), (("requests", Digest.of(b"r")),), 1,
        parent=LockedParent("base", below, Digest.of(b"config")) if below else None,
    )  # fmt: skip


def test_a_lock_names_the_parent_and_has_a_form_of_its_own_only_then() -> None:
    lock = Lock("child", (section(Digest.of(b"base")),))
    text = format_lock(lock)
    assert parse_lock(text, "child.lock") == lock
    assert "format = 3" in text and f'[section.parent]\n"recipe" = "base"\n"digest" = "{Digest.of(b"base")}"\n' in text
    assert "format = 2" in format_lock(Lock("child", (section(None),)))


@pytest.mark.parametrize("inner", ['"recipe" = 1\n"digest" = "%s"', '"recipe" = "b"\n"digest" = "x"', '"recipe" = "b"'])
def test_a_malformed_parent_is_refused(inner: str) -> None:
    text = format_lock(Lock("child", (section(Digest.of(b"base")),)))
    known = f'"recipe" = "base"\n"digest" = "{Digest.of(b"base")}"'
    assert known in text
    with pytest.raises(ResolutionError, match="the lock cannot be read"):
        parse_lock(text.replace(known, inner.replace("%s", str(Digest.of(b"base")))), "child.lock")


def test_another_parent_is_a_reason_to_lock_again(world: World) -> None:
    recipe, one, two = world.recipe(["a"]), Digest.of(b"1"), Digest.of(b"2")

    def now(below: Digest | None) -> tuple[tuple[str, Digest], ...]:
        return resolution_inputs(recipe, world.platform, "x86_64", (), parent=below)

    locked = replace(section(one), inputs=now(one))
    assert stale_reasons(locked, now(one)) == ()
    assert stale_reasons(locked, now(two)) == (f"the parent image changed (config {one} → {two})",)
    assert stale_reasons(locked, now(None)) == (f"the parent image changed (config {one} → none)",)
    assert compare_sections(section(one), section(two)) == (f"~ parent base {one} → base {two}",)
    assert compare_sections(None, section(two)) == (f"+ parent base {two}",)
