"""Entries under `platforms` of recipes, and add-ons of platforms: which fit, what they say, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import Problem, RecipeError
from pipeline.model.checks.licenses_check import LicenseFacts
from pipeline.model.checks.packages_check import PackageFacts
from pipeline.model.recipe import Recipe, User
from pipeline.recipes import PlatformTarget, load_platforms, load_recipe
from pipeline.resolve import resolution_inputs
from pipeline.yaml_documents import load_yaml
from tests.support.recipe_folder import write
from tests.support.schemas import validate_recipe

PLATFORMS = """\
platforms:
  local: {repositories: [{id: base, baseurls: ["file:///local"], keys: [/key]}]}
  el-9:
    families: [el9, el]
    variables: {release: "9"}
    repositories: [{id: base, baseurls: ["https://example.org/$release"], keys: [/key]}]
  mine-9:
    extends: el-9
    families: [mine]
  el-8:
    families: [el8, el]
    variables: {release: "8"}
    repositories: [{id: base, baseurls: ["https://example.org/$release"], keys: [/key]}]
  other-1: {repositories: [{id: base, baseurls: ["file:///other"], keys: [/key]}]}
  suse-1: {families: [suse], repositories: [{id: base, baseurls: ["file:///suse"], keys: [/key]}]}
add-ons:
  vendor:
    platforms:
      el8: [{id: vendor, baseurls: ["https://vendor.example/el8"], keys: [keys/vendor], module_hotfixes: true}]
      el: [{id: vendor, baseurls: ["https://vendor.example/$release"], keys: [keys/vendor]}]
  extra:
    platforms: {any: [{id: extra, baseurls: ["https://extra.example"], keys: [/key]}]}
"""
RECIPE = """\
name: demo
version: "{{ packages['server'].version }}"
platform: local
layers:
  - name: all
    packages: [server, "client >= 2", tools, bash]
pins: {server: "3"}
exclude: [client, "*-debug"]
accounts:
  users: [{name: demo, uid: 27, home: /var/lib/demo}, {name: kept, uid: 28}]
values: {binary: /usr/bin/demo, port: 80}
image: {entrypoint: ["{{ binary }}"], user: demo}
smoke:
  checks:
    - {name: answers, command: ["{{ binary }}"]}
    - {name: has it, packages: {present: [server, bash], absent: [gcc, "*-devel"]}}
    - {name: is free, licenses: [client]}
    - {name: stops, stop: {within: 5s}}
platforms:
  local: {}
  el:
    add-ons: [vendor]
    packages: {server: vendor-server, client: [vendor-client, vendor-common], tools: []}
    pins: {server: "4"}
    values: {binary: /usr/sbin/demod}
    modules: ["demo:1"]
  el-9:
    packages: {client: el9-client}
    accounts: {users: [{name: demo, uid: 99}]}
    image: {user: "99"}
    checks:
      - {name: answers, port: "{{ port }}"}
  mine:
    values: {port: 81}
  suse: {refused: it is called otherwise there}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, PLATFORMS, "repositories.yaml")
    write(tmp_path, RECIPE)
    return tmp_path


def load(folder: Path, platform: str | None = None, name: str = "demo.yaml") -> Recipe:
    return load_recipe(folder / name, PlatformTarget(folder / "repositories.yaml", platform))


def problems(folder: Path, platform: str | None = None, name: str = "demo.yaml") -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        load(folder, platform, name)
    return caught.value.problems


def changed(folder: Path, old: str, new: str, name: str = "demo.yaml") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


def requests(recipe: Recipe) -> list[str]:
    return [request.text for layer in recipe.layers for request in layer.requests]


# --- choosing --------------------------------------------------------------------------------------


def test_a_recipe_is_as_it_stands_where_its_entry_says_nothing(folder: Path) -> None:
    chosen = load(folder)
    changed(folder, RECIPE[RECIPE.index("platforms:") :], "")
    plain = load(folder)
    assert requests(chosen) == requests(plain) == ["server", "client >= 2", "tools", "bash"]
    assert (chosen.image, chosen.pins, chosen.users, chosen.values) == (
        plain.image,
        plain.pins,
        plain.users,
        plain.values,
    )
    assert [check.kind for check in chosen.smoke.checks] == [check.kind for check in plain.smoke.checks]
    assert chosen.package_names == () and chosen.add_ons == ()


def test_the_families_names_replace_the_recipes_wherever_it_names_packages(folder: Path) -> None:
    recipe = load(folder, "el-8")
    assert requests(recipe) == ["vendor-server", "vendor-client >= 2", "vendor-common >= 2", "bash"]
    assert recipe.excludes == ("vendor-client", "vendor-common", "*-debug")
    assert recipe.pins == (("server", "4"), ("vendor-server", "3")), "an entry names packages as they are there"
    present, licences = (recipe.smoke.checks[index].subject for index in (1, 2))
    assert present == PackageFacts(present=("vendor-server", "bash"), absent=("gcc", "*-devel"))
    assert licences == LicenseFacts(packages=("vendor-client", "vendor-common"))
    assert dict(recipe.package_names)["client"] == ("vendor-client", "vendor-common")
    assert (recipe.modules, recipe.add_ons) == (("demo:1",), ("vendor",))
    assert dict(recipe.values) == {"binary": "/usr/sbin/demod", "port": 80}


def test_the_most_specific_entry_wins_key_by_key(folder: Path) -> None:
    recipe = load(folder, "el-9")
    assert requests(recipe) == ["vendor-server", "el9-client >= 2", "bash"]
    assert recipe.users == (User("kept", 28), User("demo", 99)), "one account replaced, one left"
    assert recipe.image.user == "99" and recipe.add_ons == ("vendor",)
    assert [check.name for check in recipe.smoke.checks] == ["answers", "has it", "is free", "stops"]
    assert recipe.smoke.checks[0].kind == "port" and ":32: platforms.el-9.checks[0]" in recipe.smoke.checks[0].place


def test_a_platform_belongs_to_what_it_extends(folder: Path) -> None:
    recipe = load(folder, "mine-9")
    assert dict(recipe.values) == {"binary": "/usr/sbin/demod", "port": 81}
    assert recipe.platform_entries == ((folder / "demo.yaml", ("el", "el-9", "mine")),)
    assert load_platforms(folder / "repositories.yaml")["mine-9"].families == ("mine-9", "mine", "el-9", "el9", "el")


def test_a_platform_that_no_entry_fits_is_refused_with_its_families(folder: Path) -> None:
    (problem,) = problems(folder, "other-1")
    assert problem.code == "platform-unsupported" and problem.place == "demo.yaml:19: platforms"
    assert problem.message == "no entry fits the platform 'other-1' (other-1)"
    assert problem.hint is not None and "'any'" in problem.hint and "local, el, el-9, mine, suse" in problem.hint
    changed(folder, "platforms:\n  local: {}\n", "platforms:\n  any: {exclude: [nothing]}\n")
    assert load(folder, "other-1").excludes == ("client", "*-debug", "nothing")
    assert load(folder, "el-9").platform_entries[0][1] == ("any", "el", "el-9"), "the most general of all"
    assert problems(folder, "nosuch")[0].code == "platform-unknown"


def test_a_refused_platform_says_why_unless_a_more_specific_entry_does_not(folder: Path) -> None:
    (problem,) = problems(folder, "suse-1")
    assert problem.code == "recipe-refused" and problem.place == "demo.yaml:35: platforms.suse.refused"
    assert problem.message.endswith("'suse-1' (suse-1 → suse): it is called otherwise there")
    assert problem.hint == "choose a platform of local, el, el-9, mine"
    changed(folder, "  suse:", "  suse-1: {packages: {tools: suse-tools}}\n  suse:")
    assert "suse-tools" in requests(load(folder, "suse-1"))


def test_without_definitions_a_platform_has_no_families(tmp_path: Path) -> None:
    path = write(tmp_path, RECIPE)
    assert requests(load_recipe(path))[0] == "server"
    assert load_recipe(path, PlatformTarget(tmp_path / "none.yaml", "el+vendor")).add_ons == ("vendor",)


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("tools: []", "tool: []", "package-unrequested", "demo.yaml:23: platforms.el.packages.tool"),
        ("suse: {", "suse: {exclude: [x], ", "platform-contradiction", "demo.yaml:35: platforms.suse"),
        ("  mine:", "  ohter-1:", "platform-unknown", "demo.yaml:33: platforms.ohter-1"),
        ("[vendor-client,", "[vendor client,", "name-malformed", "demo.yaml:23: platforms.el.packages.client[0]"),
        ("add-ons: [vendor]", "add-on: [vendor]", "key-unknown", "demo.yaml:22: platforms.el.add-on"),
        ("  local: {}", "  local: {layers: []}", "key-unknown", "demo.yaml:20: platforms.local.layers"),
        (RECIPE[RECIPE.index("platforms:\n") :], "platforms: {}\n", "list-empty", "demo.yaml:19: platforms"),
    ],
)
def test_mistakes_in_any_entry_are_told_with_their_place(
    folder: Path, old: str, new: str, code: str, place: str
) -> None:
    changed(folder, old, new)
    (problem,) = problems(folder)
    assert (problem.code, problem.place) == (code, place)


@pytest.mark.parametrize(
    ("old", "new", "code", "place"),
    [
        ("  el-9:", "  el-9:\n    files: [{path: /x}]", "file-kind", "demo.yaml:28: platforms.el-9.files[0]"),
        ("[vendor]", "[vender]", "add-on-unknown", "demo.yaml:22: platforms.el.add-ons[0]"),
        ("name: answers, port", "name: answer, port", "check-replaces-nothing", None),
        ("client: el9-client", "client: []", "check-without-packages", "demo.yaml:17: smoke.checks[2].licenses"),
        ('"{{ port }}"}', '"{{ prot }}"}', "template-undefined", "demo.yaml:32: platforms.el-9.checks[0].port"),
    ],
)
def test_mistakes_of_the_entries_that_fit_are_told_with_their_place(
    folder: Path, old: str, new: str, code: str, place: str | None
) -> None:
    changed(folder, old, new)
    assert load(folder).name == "demo"
    (problem,) = problems(folder, "el-9")
    assert problem.code == code and (place is None or problem.place == place)


def test_two_checks_of_one_name_in_an_entry_are_refused(folder: Path) -> None:
    changed(folder, "      - {name: answers, port", "      - {name: answers, port: '1'}\n      - {name: answers, port")
    (problem,) = problems(folder, "el-9")
    assert (problem.code, problem.place) == ("check-duplicate", "demo.yaml:33: platforms.el-9.checks[1].name")
    changed(folder, "  mine:", "  mine:\n    checks: [{name: answers, port: '82'}]")
    changed(folder, "      - {name: answers, port: '1'}\n", "")
    assert load(folder, "mine-9").smoke.checks[0].place.startswith("demo.yaml:34: platforms.mine"), "another entry's"


@pytest.mark.parametrize("name", ["demo.yaml", "top.yaml"])
def test_checks_of_an_entry_replace_nothing_in_a_recipe_without_smoke(folder: Path, name: str) -> None:
    start, end = RECIPE.index("smoke:\n"), RECIPE.index("platforms:\n")
    changed(folder, RECIPE[start:end], "")
    write(folder, "include: [demo.yaml]\nname: top\nversion: '1'\n", "top.yaml")
    assert load(folder, "el-8", name).smoke.checks == ()
    (problem,) = problems(folder, "el-9", name)
    assert problem.code == "check-replaces-nothing" and problem.hint is not None and "'smoke'" in problem.hint
    assert problem.place == "demo.yaml:26: platforms.el-9.checks[0].name"


@pytest.mark.parametrize(("platform", "code"), [("locla", "platform-unknown"), ("gone", "platform-refused")])
def test_an_own_platform_that_is_unknown_is_told_by_its_line_beside_other_mistakes(
    folder: Path, platform: str, code: str
) -> None:
    changed(folder, "add-ons:\n", "  gone: {refused: it has ended}\nadd-ons:\n", "repositories.yaml")
    changed(folder, "platform: local", f"platform: {platform}")
    changed(folder, "tools: []", "tool: []")
    found = [(one.code, one.place) for one in problems(folder)]
    assert found == [
        (code, "demo.yaml:3: platform"),
        ("package-unrequested", "demo.yaml:23: platforms.el.packages.tool"),
    ]
    write(folder, "include: [demo.yaml]\nname: top\nversion: '1'\n", "top.yaml")
    assert [(one.code, one.place) for one in problems(folder, None, "top.yaml")] == found


def test_another_release_than_the_known_ones_is_no_misspelling(folder: Path) -> None:
    changed(folder, "  local: {}", "  local: {}\n  el-7: {}\n  elsewhere: {}")
    assert load(folder).name == "demo"


@pytest.mark.parametrize("name", ["ol9", "al9", "sl-9", "ol-9", "ml", "sues", "lo9al", "locus", "order-1"])
def test_a_distribution_that_is_not_defined_here_is_no_misspelling(folder: Path, name: str) -> None:
    changed(folder, "  local: {}", f"  local: {{}}\n  {name}: {{}}")
    assert load(folder).name == "demo"


@pytest.mark.parametrize(("name", "meant"), [("othre-1", "other-1"), ("localy", None), ("loacl", "local")])
def test_two_exchanged_letters_are_a_misspelling(folder: Path, name: str, meant: str | None) -> None:
    changed(folder, "  mine:", f"  {name}:")
    if meant is None:
        assert load(folder).name == "demo"
    else:
        (problem,) = problems(folder)
        assert (problem.code, problem.hint) == ("platform-unknown", f"did you mean '{meant}'?")


def test_add_ons_are_checked_where_they_count(folder: Path) -> None:
    changed(folder, "add-ons: [vendor]", "add-ons: [unfit]")
    changed(folder, "  el-9:", "  el-9:\n    add-ons: [vendor]")
    assert load(folder, "el-9").add_ons == ("vendor",), "the general entry's are replaced"
    assert [(one.code, one.place) for one in problems(folder, "el-8")] == [
        ("add-on-unknown", "demo.yaml:22: platforms.el.add-ons[0]")
    ]
    changed(folder, "    add-ons: [vendor]", "    add-ons: []")
    assert load(folder, "el-9").add_ons == (), "with none, too"


# --- includes and parents ----------------------------------------------------------------------------


def test_included_recipes_choose_by_themselves_and_names_hold_for_the_whole_image(folder: Path) -> None:
    top = "include: [demo.yaml]\nname: top\nversion: '1'\n"
    write(folder, top + "layers: [{name: top, packages: [tools]}]\n", "top.yaml")
    assert requests(load(folder, "el-8", "top.yaml"))[-1] == "bash", "tools are nothing there"
    assert problems(folder, "other-1", "top.yaml")[0].place == "demo.yaml:19: platforms"
    write(folder, top + "platforms: {el: {packages: {server: top-server}}}\n", "top.yaml")
    assert requests(load(folder, "el-8", "top.yaml"))[0] == "top-server", "the upper recipe wins"
    assert problems(folder, None, "top.yaml")[0].place == "top.yaml:4: platforms"


def test_a_child_has_the_names_and_add_ons_of_its_parent(folder: Path) -> None:
    write(
        folder,
        "from: demo\nname: child\nversion: '1'\nlayers: [{name: top, packages: [server]}]\n"
        "platforms: {any: {add-ons: [extra]}}\n",
        "child.yaml",
    )
    child = load(folder, "el-8", "child.yaml")
    assert requests(child) == ["vendor-server"] and child.add_ons == ("vendor", "extra")
    assert child.parent is not None and child.parent.add_ons == ("vendor",)
    (problem,) = problems(folder, "suse-1", "child.yaml")
    assert problem.place == "demo.yaml:35: platforms.suse.refused"


# --- add-ons -----------------------------------------------------------------------------------------


def test_an_add_on_puts_repositories_on_top_by_the_families(folder: Path) -> None:
    platforms = load_platforms(folder / "repositories.yaml")
    nine = platforms.find("mine-9", add_ons=("vendor",))
    eight = platforms.find("el-8+vendor+extra", add_ons=("vendor",))
    assert [one.baseurls[0] for one in nine.repositories] == [
        "https://example.org/$release",
        "https://vendor.example/$release",
    ]
    assert [(one.id, one.module_hotfixes) for one in eight.repositories] == [
        ("base", False),
        ("vendor", True),
        ("extra", False),
    ]
    assert (nine.full_name, eight.full_name) == ("mine-9+vendor", "el-8+vendor+extra")
    assert eight.name == "el-8" and folder / "keys/vendor" in eight.files, "the key goes to workers"


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("example/$release", "example/$relase", "add-ons.vendor.platforms.el[0].baseurls[0]"),
        ("https://extra.example", "https://extra.example/$relase", "add-ons.extra.platforms.any[0].baseurls[0]"),
    ],
)
def test_a_variable_of_an_add_on_is_refused_that_no_platform_defines_which_it_fits(
    folder: Path, old: str, new: str, place: str
) -> None:
    changed(folder, old, new, "repositories.yaml")
    with pytest.raises(RecipeError) as caught:
        load_platforms(folder / "repositories.yaml")
    (problem,) = caught.value.problems
    assert problem.code == "variable-undefined" and str(problem.place).endswith(place)
    assert problem.hint == "did you mean '$release'?"


def test_a_variable_of_an_add_on_may_be_that_of_one_platform_or_of_one_that_cannot_be_used_here(folder: Path) -> None:
    changed(folder, "https://extra.example", "https://extra.example/$release", "repositories.yaml")
    load_platforms(folder / "repositories.yaml")
    changed(folder, "extra.example/$release", "extra.example/$entitled", "repositories.yaml")
    entitled = "  rhel-9: {dnf-vars: [/nosuch], repositories: [{file: /nosuch}]}\nadd-ons:"
    changed(folder, "add-ons:", entitled, "repositories.yaml")
    assert "rhel-9" in load_platforms(folder / "repositories.yaml").broken


@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [
        ("local+vendor", "add-on-unfit", "it has some for el, el8"),
        ("local+vender", "add-on-unknown", "did you mean 'vendor'?"),
        ("local+", "add-on-unknown", "add-ons: extra, vendor"),
    ],
)
def test_an_add_on_that_does_not_fit_is_refused(folder: Path, name: str, code: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_platforms(folder / "repositories.yaml").find(name, place="here")
    (problem,) = caught.value.problems
    assert (problem.code, problem.place, problem.hint) == (code, "here", hint)


def test_a_platform_can_have_add_ons_of_its_own(folder: Path) -> None:
    changed(folder, "    families: [mine]", "    families: [mine]\n    add-ons: [vendor]", "repositories.yaml")
    platforms = load_platforms(folder / "repositories.yaml")
    assert platforms["mine-9"].full_name == "mine-9+vendor"
    assert platforms.find("mine-9", add_ons=("vendor",)) == platforms["mine-9"], "it has it already"
    changed(folder, "add-ons: [vendor]", "add-ons: [vender]", "repositories.yaml")
    with pytest.raises(RecipeError) as caught:
        load_platforms(folder / "repositories.yaml")
    assert [one.place for one in caught.value.problems] == ["repositories.yaml:10: platforms.mine-9.add-ons[0]"]


@pytest.mark.parametrize("where", ["platform", "recipe"])
def test_a_repository_is_not_defined_in_two_ways(folder: Path, where: str) -> None:
    changed(folder, "[{id: extra,", "[{id: base,", "repositories.yaml")
    if where == "platform":
        changed(folder, "    families: [mine]", "    families: [mine]\n    add-ons: [extra]", "repositories.yaml")
    with pytest.raises(RecipeError) as caught:
        load_platforms(folder / "repositories.yaml").find("el-9+extra", place="here")
    assert caught.value.code == "repository-duplicate"


# --- locks, schema -------------------------------------------------------------------------------------


def inputs(folder: Path, platform: str, name: str) -> Mapping[str, Digest]:
    recipe = load(folder, platform, name)
    chosen = load_platforms(folder / "repositories.yaml").find(platform, add_ons=recipe.add_ons)
    return dict(resolution_inputs(recipe, chosen, "x86_64", ()))


@pytest.mark.parametrize("name", ["demo.yaml", "top.yaml"])
def test_another_choice_makes_only_its_platforms_section_stale(folder: Path, name: str) -> None:
    write(folder, "include: [demo.yaml]\nname: top\nversion: '1'\n", "top.yaml")
    before = {platform: inputs(folder, platform, name) for platform in ("local", "el-8", "el-9")}
    changed(folder, "client: el9-client", "client: el9-clients")
    now = {platform: inputs(folder, platform, name) for platform in before}
    assert now["local"] == before["local"] and now["el-8"] == before["el-8"]
    assert now["el-9"]["requests"] != before["el-9"]["requests"]
    changed(folder, "add-ons: [vendor]", "add-ons: [vendor, extra]")
    added = {platform: inputs(folder, platform, name) for platform in before}
    assert added["local"] == before["local"] and added["el-8"]["repositories"] != now["el-8"]["repositories"]


def test_what_an_included_recipe_says_for_all_makes_every_section_stale(folder: Path) -> None:
    write(folder, "include: [demo.yaml]\nname: top\nversion: '1'\n", "top.yaml")
    before = {platform: inputs(folder, platform, "top.yaml")["includes"] for platform in ("local", "el-9")}
    changed(folder, "port: 80", "port: 80, share: 0.5")
    assert all(inputs(folder, platform, "top.yaml")["includes"] != before[platform] for platform in before)


def test_the_schema_of_editors_knows_the_entries(folder: Path) -> None:
    validate_recipe(load_yaml(folder / "demo.yaml").value)
