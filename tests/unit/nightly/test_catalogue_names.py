"""Recipes that cannot be read or named fail their own products, under names that pages and reports can hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.nightly.catalogue import NAME_LIMIT, CatalogueEntry, load_catalogue, recipe_files, recipe_templates
from pipeline.recipes.fields import NAME_FORM
from pipeline.site.page_paths import product_folder

RECIPE = """\
name: {name}
version: "1"
platform: local
layers: [{{name: base, packages: [a]}}]
image: {{entrypoint: [/bin/true]}}
smoke: {{checks: [{{name: ends, command: [/bin/true]}}]}}
"""
BROKEN = "version: 1\n"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    (tmp_path / "repositories.yaml").write_text(
        "platforms:\n  local: {architectures: [x86_64], repositories: "
        "[{id: a, baseurls: ['file:///nowhere'], keys: [key]}]}\n"
    )
    write(tmp_path, "good.yaml", RECIPE.format(name="good"))
    return tmp_path


def write(folder: Path, name: str | bytes, text: str) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name)))).write_text(text)  # noqa: PTH118  bytes


def entries(catalogue: Path) -> dict[str, CatalogueEntry]:
    """The entries by name; each name is one that pages and reports can hold."""
    found = load_catalogue([catalogue]).entries
    for entry in found:
        assert re.fullmatch(NAME_FORM, entry.name) and product_folder(entry.name), entry.name
    assert len({entry.name for entry in found}) == len(found)
    return {entry.name: entry for entry in found}


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("my app.yaml", BROKEN, "my-app"),
        ("My_App.yaml", "name: My_App\n", "my-app"),
        ("x.yaml", 'name: "../../x"\n', "x"),
        ("x.yaml", "name: [x]\n", "x"),
        ("..x.y_z--.yaml", BROKEN, None),
        ("a\nb<i>.yaml", BROKEN, "a-b-i"),
        ("база.yaml", BROKEN, "unnamed"),
        (b"\xff\xfe.yaml", BROKEN, "unnamed"),
        ("n" * 240 + ".yaml", BROKEN, "n" * 100),
        ("-.yaml", "\0", "unnamed"),
        ("x.yaml", "name: other-name\nversion: 1\n", "other-name"),
        ("mysql-8.4.yaml", BROKEN, "mysql-8.4"),
        ("x.yaml", "name: " + "n" * (NAME_LIMIT + 1), "x"),
        ("x.yaml", RECIPE.format(name="n" * (NAME_LIMIT + 1)), "x"),
    ],
)
def test_what_cannot_be_named_fails_under_a_name_that_stands_for_it(
    file: str | bytes, text: str, name: str | None, catalogue: Path
) -> None:
    write(catalogue, file, text)
    found = entries(catalogue)
    assert found.keys() == {"good"} | ({name} if name else set())
    assert found["good"].recipe is not None
    if name:
        assert found[name].error is not None and found[name].recipe is None


def test_a_name_that_stands_for_a_recipe_is_no_others(catalogue: Path) -> None:
    """Else both would fail as two recipes of one name."""
    write(catalogue, "Good!.yaml", BROKEN)
    write(catalogue, "good-2.yaml", RECIPE.format(name="good-2"))
    write(catalogue, "Good.yaml", BROKEN)
    found = entries(catalogue)
    assert found.keys() == {"good", "good-2", "good-3", "good-4"}
    assert {name for name, entry in found.items() if entry.error is None} == {"good", "good-2"}


def test_two_recipes_that_give_one_name_fail_also_where_one_cannot_be_loaded(catalogue: Path) -> None:
    write(catalogue, "again.yaml", "name: good\n")
    error = entries(catalogue)["good"].error
    assert error is not None and error.code == "name-twice"


def test_hidden_files_are_no_recipes_unless_they_are_named(catalogue: Path) -> None:
    """An editor's lock is a link to nothing, beside the file that is being edited."""
    (catalogue / ".#good.yaml").symlink_to("somebody@host.1234")
    write(catalogue, ".other.yaml", RECIPE.format(name="other"))
    assert entries(catalogue).keys() == {"good"}
    assert load_catalogue([catalogue / ".other.yaml"]).find("other") is not None


def test_a_link_that_leads_to_itself_fails_its_own_product(catalogue: Path) -> None:
    (catalogue / "loop.yaml").symlink_to("loop.yaml")
    (catalogue / "there.yaml").symlink_to("back.yaml")
    (catalogue / "back.yaml").symlink_to("there.yaml")
    found = entries(catalogue)
    assert found["good"].error is None
    for name in ("loop", "there", "back"):
        error = found[name].error
        assert error is not None and "Too many levels of symbolic links" in str(error)


def test_links_that_lead_to_themselves_beside_a_recipe_change_nothing(catalogue: Path) -> None:
    """Where a template or a lock would be: they are read, if at all, by who builds."""
    write(catalogue, "good.yaml", RECIPE.format(name="good") + "files: [{template: t.j2, path: /t}]\n")
    write(catalogue, "t.j2", "{% include 'loop.j2' ignore missing %}")
    for name in ("loop.j2", "good.lock"):
        (catalogue / name).symlink_to(name)
    recipe = entries(catalogue)["good"].recipe
    assert recipe is not None
    assert catalogue / "good.lock" in recipe_files(recipe)
    assert recipe_templates(recipe) == {catalogue / "t.j2"}


def test_recipes_with_the_ending_that_a_catalogue_does_not_take_are_told(catalogue: Path) -> None:
    write(catalogue, "other.yml", RECIPE.format(name="other"))
    write(catalogue, "broken.yml", "name: [")
    for name, text in (
        ("compose.yml", "name: it\nservices: {}\n"),
        ("repositories.yml", "platforms: {}\n"),
        (".hidden.yml", RECIPE.format(name="hidden")),
        ("part.yml", "layers: [{name: base, packages: [b]}]\n"),
        ("whole.yml", RECIPE.format(name="whole")),
    ):
        write(catalogue, name, text)
    write(catalogue, "good.yaml", "include: [whole.yml]\nname: good\nversion: '1'\n")
    found = load_catalogue([catalogue])
    assert [entry.name for entry in found.entries] == ["good"] and found.entries[0].error is None
    assert found.left_out == (catalogue / "broken.yml", catalogue / "other.yml")
    named = load_catalogue([catalogue, catalogue / "other.yml"])
    assert named.find("other") is not None and named.left_out == (catalogue / "broken.yml",)
    for path in catalogue.glob("*.yaml"):
        path.unlink()
    with pytest.raises(UsageError) as refused:
        load_catalogue([catalogue])
    assert "; 'broken.yml' does not" in str(refused.value.problems[0].hint)
