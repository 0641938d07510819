"""Including recipes, and finding them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.model.recipe import FileKind
from pipeline.recipes import find_recipe, load_recipe
from pipeline.recipes.recipe_lookup import INCLUDE_DEPTH
from tests.support.recipe_folder import refused, write

BASE = """\
    name: base
    version: "0"
    platform: centos
    architectures: [x86_64, aarch64]
    weak-dependencies: true
    languages: [en]
    layers: [{name: base, packages: [bash]}]
    accounts: {users: [{name: a, uid: 5}]}
    exclude: [one]
    pins: {p: "1", q: "1"}
    files: [{content: lower, path: /etc/a}, {content: stays, path: /etc/b}]
    values: {port: 1, deep: {x: 1, y: [1]}}
    image:
      entrypoint: [lower]
      command: [lower]
      user: lower
      environment: {A: lower, B: lower}
      labels: {a: lower}
    smoke: {checks: [{name: lower, log: lower}]}
    """

TOP = """\
    name: top
    version: "1"
    include: [base.yaml]
    platform: fedora
    weak-dependencies: false
    layers: [{name: product, packages: [sed]}]
    accounts: {users: [{name: b, uid: 6}]}
    exclude: [two, one]
    pins: {q: "2"}
    files: [{content: upper, path: /etc/a, override: true}]
    values: {port: 2, deep: {y: [2], z: 3}}
    image:
      entrypoint: [upper]
      environment: {B: upper, C: upper}
      labels: {b: upper}
    """


def test_a_recipe_lies_on_top_of_what_it_includes(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    recipe = load_recipe(write(tmp_path, TOP, "top.yaml"))
    assert (recipe.name, recipe.version, recipe.platform) == ("top", "1", "fedora")
    assert recipe.architectures == ("x86_64", "aarch64")
    assert not recipe.weak_dependencies
    assert recipe.languages == ("en",)
    assert [layer.name for layer in recipe.layers] == ["base", "product"]
    assert [user.name for user in recipe.users] == ["a", "b"]
    assert recipe.excludes == ("one", "two")
    assert recipe.pins == (("p", "1"), ("q", "2"))
    assert [(plan.path, plan.origin) for plan in recipe.files] == [("/etc/a", "upper"), ("/etc/b", "stays")]
    assert dict(recipe.values) == {"port": 2, "deep": {"x": 1, "y": [2], "z": 3}}
    assert (recipe.image.entrypoint, recipe.image.command) == (("upper",), ("lower",))
    assert recipe.image.user == "lower"
    assert recipe.image.environment == ("A=lower", "B=upper", "C=upper")
    assert recipe.image.labels == (("a", "lower"), ("b", "upper"))
    assert [check.name for check in recipe.smoke.checks] == ["lower"]
    assert recipe.sources == (tmp_path / "top.yaml", tmp_path / "base.yaml")


def test_the_older_image_is_relative_to_the_recipe_that_names_it(tmp_path: Path) -> None:
    text = BASE.replace("smoke: {", "smoke: {upgrade_from: ../previous/base, ")
    write(tmp_path, text, "shared/base/base.yaml")
    top = write(tmp_path, TOP.replace("base.yaml", "shared/base/base.yaml"), "top.yaml")
    assert load_recipe(top).smoke.upgrade_from == "shared/previous/base"
    assert load_recipe(tmp_path / "shared/base/base.yaml").smoke.upgrade_from == "../previous/base"


def test_smoke_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    recipe = load_recipe(
        write(
            tmp_path,
            TOP.rstrip(" ") + "    smoke: {instances: 3, checks: [{name: upper, log: x}]}\n",
            "top.yaml",
        )
    )
    assert [check.name for check in recipe.smoke.checks] == ["upper"]
    assert recipe.smoke.instances == 3


def test_included_checks_follow_the_values_of_the_upper_recipe(tmp_path: Path) -> None:
    write(tmp_path, BASE.replace("log: lower", 'port: "{{ port }}"'), "base.yaml")
    recipe = load_recipe(write(tmp_path, TOP, "top.yaml"))
    assert recipe.smoke.checks[0].port == 2


def test_places_and_paths_of_an_included_recipe_are_its_own(tmp_path: Path) -> None:
    write(tmp_path / "shared", "text", "motd")
    write(tmp_path / "shared", "template", "conf.j2")
    sha = "a" * 64
    write(
        tmp_path / "shared",
        f"""\
        layers: [{{name: base, packages: [bash, {{path: fix.rpm, sha256: {sha}}}]}}]
        files:
          - {{source: motd, path: /etc/motd}}
          - {{template: conf.j2, path: /etc/conf}}
        """,
        "base.yaml",
    )
    recipe = load_recipe(
        write(
            tmp_path / "products",
            'name: a\nversion: "1"\nplatform: local\ninclude: [../shared/base.yaml]\n',
        )
    )
    layer = recipe.layers[0]
    assert layer.requests[0].place == "../shared/base.yaml:1: layers[0].packages[0]"
    assert layer.local[0].path == Path("../shared/fix.rpm")
    assert [(plan.kind, plan.origin) for plan in recipe.files] == [
        (FileKind.SOURCE, "../shared/motd"),
        (FileKind.TEMPLATE, "conf.j2"),
    ]
    assert recipe.files[0].place == "../shared/base.yaml:3: files[0]"


def test_problems_in_an_included_recipe_are_placed_there(tmp_path: Path) -> None:
    write(tmp_path, BASE.replace("packages: [bash]", "package: [bash]"), "base.yaml")
    problems = refused(write(tmp_path, TOP.replace("platform:", "platfrom:"), "top.yaml"))
    assert {problem.place for problem in problems} == {"top.yaml:4: platfrom"}
    problems = refused(write(tmp_path, TOP, "top.yaml"))
    assert [(problem.code, problem.place) for problem in problems] == [
        ("key-missing", "base.yaml:7: layers[0]"),
        ("key-unknown", "base.yaml:7: layers[0].package"),
    ]


def test_an_included_recipe_that_is_no_yaml_is_placed_there(tmp_path: Path) -> None:
    write(tmp_path, "a: b: c\n", "base.yaml")
    (problem,) = refused(write(tmp_path, TOP, "top.yaml"))
    assert (problem.code, problem.place) == ("yaml-syntax", "base.yaml:1:5")


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("name: product", "name: base", "layer-duplicate", "top.yaml:6: layers[0].name"),
        (", override: true", "", "file-duplicate", "top.yaml:10: files[0]"),
        ("{name: b, uid: 6}", "{name: a, uid: 6}", "account-duplicate", "top.yaml:7: accounts.users[0].name"),
        ("{name: b, uid: 6}", "{name: b, uid: 5}", "account-duplicate", "top.yaml:7: accounts.users[0].uid"),
        ("[base.yaml]", "[bsae.yaml]", "include-missing", "top.yaml:3: include[0]"),
    ],
)
def test_what_does_not_fit_on_what_is_included(tmp_path: Path, old: str, new: str, code: str, place: str) -> None:
    write(tmp_path, BASE, "base.yaml")
    assert old in TOP
    problem = refused(write(tmp_path, TOP.replace(old, new), "top.yaml"))[0]
    assert (problem.code, problem.place) == (code, place)
    assert problem.hint


def test_a_missing_include_says_what_was_meant(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    (problem,) = refused(write(tmp_path, TOP.replace("base.yaml", "bsae.yaml"), "top.yaml"))
    assert problem.hint == "did you mean 'base.yaml'?"


def test_name_and_version_are_not_inherited(tmp_path: Path) -> None:
    write(tmp_path, BASE, "base.yaml")
    problems = refused(write(tmp_path, "include: [base.yaml]\n", "top.yaml"))
    assert [problem.message for problem in problems] == [
        "the key 'name' is missing",
        "the key 'version' is missing",
    ]


def test_recipes_that_include_one_another_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "include: [b.yaml]\n", "a.yaml")
    write(tmp_path, "include: [c.yaml]\n", "b.yaml")
    path = write(tmp_path, "include: [a.yaml]\n", "c.yaml")
    (problem,) = refused(path)
    assert (problem.code, problem.place) == ("include-cycle", "b.yaml:1: include[0]")
    assert "c.yaml → a.yaml → b.yaml → c.yaml" in problem.message
    (itself,) = refused(write(tmp_path, "include: [d.yaml]\n", "d.yaml"))
    assert itself.code == "include-cycle"


def test_a_recipe_that_is_reached_twice_is_taken_once(tmp_path: Path) -> None:
    write(tmp_path, "layers: [{name: base, packages: [bash]}]\n", "base.yaml")
    write(tmp_path, "include: [base.yaml]\nlayers: [{name: left, packages: [sed]}]\n", "left.yaml")
    write(tmp_path, "include: [base.yaml]\nlayers: [{name: right, packages: [gawk]}]\n", "right.yaml")
    top = 'name: a\nversion: "1"\nplatform: local\ninclude: [left.yaml, right.yaml]\n'
    recipe = load_recipe(write(tmp_path, top, "top.yaml"))
    assert [layer.name for layer in recipe.layers] == ["base", "left", "right"]


def test_includes_have_a_bound_on_depth(tmp_path: Path) -> None:
    for number in range(INCLUDE_DEPTH + 2):
        write(tmp_path, f"include: [r{number + 1}.yaml]\n", f"r{number}.yaml")
    write(tmp_path, "layers: []\n", f"r{INCLUDE_DEPTH + 2}.yaml")
    (problem,) = refused(tmp_path / "r0.yaml")
    assert (problem.code, problem.place) == ("include-too-deep", f"r{INCLUDE_DEPTH}.yaml:1: include[0]")


def test_a_recipe_is_found_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = tmp_path / "recipes"
    path = write(recipes, "", "mysql.yaml")
    monkeypatch.chdir(tmp_path)
    for name in ("mysql", "mysql.yaml", "recipes/mysql.yaml", str(path)):
        assert find_recipe(name, [recipes]).resolve() == path
    here = write(tmp_path, "", "mysql.yaml")
    assert find_recipe("mysql", [recipes]).resolve() == here


def test_a_pipe_is_no_recipe_and_not_told_as_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "demo.yaml")
    for name in (str(tmp_path / "demo.yaml"), "demo"):
        with pytest.raises(RecipeError, match="is a pipe, socket or device") as caught:
            find_recipe(name, [tmp_path])
        (problem,) = caught.value.problems
        assert problem.code == "recipe-unreadable" and "into a file" in (problem.hint or "")


def test_a_recipe_that_is_not_found_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "recipes", "", "mysql.yaml")
    write(tmp_path / "recipes", "", "repositories.yaml")
    for name, hint in (
        ("mysq", "did you mean 'mysql.yaml'?"),
        ("zzz", "recipes: mysql.yaml"),
        ("recipes", "nightly"),
    ):
        with pytest.raises(RecipeError) as caught:
            find_recipe(name, [tmp_path / "recipes"])
        (problem,) = caught.value.problems
        assert problem.code == "recipe-missing"
        assert hint in (problem.hint or "")
