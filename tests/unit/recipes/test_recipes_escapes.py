"""Nothing outside the folder that was given gets into an image or an error: whatever a recipe names, through links."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.digest import Digest
from pipeline.errors import Problem, RecipeError, ResolutionError
from pipeline.launch import _older
from pipeline.layers.recipe_files import render_files
from pipeline.model.lock import Lock
from pipeline.model.platform import PackageRepository, Platform
from pipeline.model.smoke import SmokePlan
from pipeline.nightly.catalogue import load_catalogue, recipe_templates
from pipeline.nightly.executors.task_inputs import pack_files, task_files
from pipeline.prepare import verified_packages
from pipeline.recipes import load_platforms, load_recipe, load_rules
from pipeline.repos.openpgp_keys import load_keys
from pipeline.resolve import read_lock, write_lock
from pipeline.store import Store
from pipeline.transfer import Download
from tests.support.recipe_folder import GOOD, good, refused, write

SHADOW = "root:$6$secret"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A folder of recipes, with a host's secret outside of what was given."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "shadow").write_text(SHADOW)
    (tmp_path / "etc" / "evil.yaml").write_text("values: {a: 1}\n")
    recipes = tmp_path / "checkout" / "recipes"
    recipes.mkdir(parents=True)
    return recipes


def link(catalogue: Path, name: str, target: str = "") -> str:
    """A link beside the recipes to what is outside; returns its target."""
    chosen = target or str(catalogue.parents[1] / "etc" / "shadow")
    (catalogue / name).symlink_to(chosen)
    return chosen


def named(problem: Problem, name: str, target: str, code: str = "path-escapes") -> None:
    """The error names the link, where it leads, and the way out."""
    assert problem.code == code
    assert f"'{name}' leads to '{target}'" in problem.message and "outside" in problem.message
    assert problem.hint and problem.place
    assert SHADOW not in str(problem)


def no_download(_: Download) -> bytes:
    raise AssertionError


@pytest.mark.parametrize("target", ["", "../../etc/shadow", "../../../../../../../../../../etc/shadow", "/etc/shadow"])
def test_a_source_that_links_to_the_hosts_shadow_is_refused(catalogue: Path, target: str) -> None:
    target = link(catalogue, "secret", target)
    (problem,) = refused(write(catalogue, GOOD + "files: [{source: secret, path: /etc/secret}]\n"))
    named(problem, "secret", target)
    assert problem.place == "demo.yaml:9: files[0].source"


def test_an_archive_that_links_out_is_refused(catalogue: Path) -> None:
    target = link(catalogue, "app.tar")
    (problem,) = refused(write(catalogue, GOOD + f"files: [{{archive: app.tar, path: /opt/a, sha256: {'a' * 64}}}]\n"))
    named(problem, "app.tar", target)
    assert problem.place == "demo.yaml:9: files[0].archive"


def test_a_source_in_a_folder_that_is_a_link_is_refused(catalogue: Path) -> None:
    target = link(catalogue, "conf", "../../etc")
    (problem,) = refused(write(catalogue, GOOD + "files: [{source: conf/shadow, path: /etc/secret}]\n"))
    named(problem, "conf", target)


def test_a_source_that_becomes_a_link_after_the_recipe_was_read_is_refused(catalogue: Path) -> None:
    (catalogue / "plain").write_text("plain")
    recipe = good(catalogue, "files: [{source: plain, path: /etc/plain}]\n")
    (catalogue / "plain").unlink()
    target = link(catalogue, "plain")
    with pytest.raises(RecipeError) as caught:
        render_files(recipe, {}, no_download)
    named(caught.value.problems[0], "plain", target)


@pytest.mark.parametrize("name", ["motd", "deep/motd"])
def test_links_that_stay_beside_the_recipe_still_work(catalogue: Path, name: str) -> None:
    (catalogue / "deep").mkdir()
    (catalogue / "real").write_text("inside")
    (catalogue / "motd").symlink_to("real")
    (catalogue / "deep" / "motd").symlink_to("../real")
    recipe = good(catalogue, f"files: [{{source: {name}, path: /etc/motd}}]\n")
    assert render_files(recipe, {}, no_download)[0][0].content == b"inside"


@pytest.mark.parametrize(("make", "said"), [(os.mkfifo, "a FIFO"), (Path.mkdir, "a folder")], ids=["FIFO", "folder"])
def test_a_source_that_is_no_regular_file_is_refused_without_waiting(catalogue: Path, make: object, said: str) -> None:
    assert callable(make)
    make(catalogue / "odd")
    (problem,) = refused(write(catalogue, GOOD + "files: [{source: odd, path: /etc/odd}]\n"))
    assert problem.code == "source-missing" and said in problem.message


@pytest.mark.parametrize("key", ["include: [evil.yaml]", "from: evil"])
def test_a_recipe_that_links_out_is_neither_included_nor_built_from(catalogue: Path, key: str) -> None:
    target = link(catalogue, "evil.yaml", "../../etc/evil.yaml")
    (problem,) = refused(write(catalogue, GOOD + key + "\n"))
    named(problem, "evil.yaml", target)


@pytest.mark.parametrize("key", ["include: [../../etc/evil.yaml]", "from: ../../etc/evil"])
def test_a_name_leads_no_further_than_the_folder_above(catalogue: Path, key: str) -> None:
    (problem,) = refused(write(catalogue, GOOD + key + "\n"))
    assert problem.code == "path-escapes" and "lies outside" in problem.message and problem.hint


def test_recipes_that_stand_beside_the_folder_can_be_included(catalogue: Path) -> None:
    write(catalogue.parent / "shared", "values: {a: 1}\nfiles: [{source: motd, path: /etc/motd}]\n", "base.yaml")
    write(catalogue.parent / "shared", "text", "motd")
    recipe = good(catalogue, "include: [../shared/base.yaml]\n")
    assert render_files(recipe, {}, no_download)[0][0].content == b"text"


def test_what_an_included_recipe_copies_may_not_link_out_either(catalogue: Path) -> None:
    write(catalogue.parent / "shared", "files: [{source: motd, path: /etc/motd}]\n", "base.yaml")
    target = link(catalogue.parent / "shared", "motd", "../../etc/shadow")
    (problem,) = refused(write(catalogue, GOOD + "include: [../shared/base.yaml]\n"))
    named(problem, "shared/motd", target)
    assert problem.place == "../shared/base.yaml:1: files[0].source"


def test_a_recipe_that_itself_links_out_is_refused(catalogue: Path) -> None:
    target = link(catalogue, "demo.yaml")
    (problem,) = refused(catalogue / "demo.yaml")
    named(problem, "demo.yaml", target)
    (entry,) = load_catalogue([catalogue]).entries
    assert entry.error is not None and entry.error.code == "path-escapes"


@pytest.mark.parametrize("folder", [".", "templates", "../templates"])
def test_a_template_that_links_out_is_refused(catalogue: Path, folder: str) -> None:
    (catalogue / folder).mkdir(exist_ok=True)
    target = str(catalogue.parents[1] / "etc" / "shadow")
    (catalogue / folder / "t.j2").symlink_to(target)
    (problem,) = refused(write(catalogue, GOOD + "files: [{template: t.j2, path: /etc/t}]\n"))
    named(problem, os.path.normpath(f"{folder}/t.j2").removeprefix("../"), target, "template-escapes")


@pytest.mark.parametrize("where", ["templates", "../templates"])
def test_a_folder_of_templates_that_links_out_is_refused(catalogue: Path, where: str) -> None:
    (catalogue / where).symlink_to(catalogue.parents[1] / "etc")
    problems = refused(write(catalogue, GOOD + "files: [{template: shadow, path: /etc/t}]\n"))
    named(problems[0], "templates", str(catalogue.parents[1] / "etc"))


def test_a_template_that_another_includes_may_not_link_out(catalogue: Path) -> None:
    (catalogue / "t.j2").write_text("{% include 'part.j2' %}")
    target = link(catalogue, "part.j2", "../../etc/shadow")
    recipe = good(catalogue, "files: [{template: t.j2, path: /etc/t}]\n")
    with pytest.raises(RecipeError) as caught:
        render_files(recipe, {}, no_download)
    named(caught.value.problems[0], "part.j2", target, "template-escapes")
    assert recipe_templates(recipe) == {catalogue / "t.j2"}


def test_a_template_that_is_a_fifo_is_not_waited_for(catalogue: Path) -> None:
    os.mkfifo(catalogue / "t.j2")
    (problem,) = refused(write(catalogue, GOOD + "files: [{template: t.j2, path: /etc/t}]\n"))
    assert problem.code == "template-missing"


def test_a_local_package_that_links_out_is_refused(catalogue: Path, tmp_path: Path) -> None:
    target = link(catalogue, "fix.rpm")
    text = GOOD.replace("[bash]", "[{path: fix.rpm, sha256: " + "a" * 64 + "}]")
    (problem,) = refused(write(catalogue, text))
    named(problem, "fix.rpm", target)
    (catalogue / "fix.rpm").unlink()
    recipe = load_recipe(write(catalogue, text))
    link(catalogue, "fix.rpm")
    with pytest.raises(RecipeError) as caught:
        verified_packages._refuse_escape(recipe, recipe.path.parent / "fix.rpm", "demo.yaml:5")
    named(caught.value.problems[0], "fix.rpm", target)


def test_a_lock_that_links_out_is_neither_read_nor_written_through(catalogue: Path) -> None:
    target = link(catalogue, "demo.lock")
    with pytest.raises(RecipeError) as caught:
        read_lock(catalogue / "demo.lock")
    named(caught.value.problems[0], "demo.lock", target)
    write_lock(catalogue / "demo.lock", Lock("demo", ()))
    assert Path(target).read_text() == SHADOW and not (catalogue / "demo.lock").is_symlink()
    assert read_lock(catalogue / "demo.lock") == Lock("demo", ())


def test_a_lock_that_is_a_fifo_is_refused_without_waiting(catalogue: Path) -> None:
    os.mkfifo(catalogue / "demo.lock")
    with pytest.raises(ResolutionError, match="FIFO"):
        read_lock(catalogue / "demo.lock")


@pytest.mark.parametrize("load", [load_platforms, load_rules])
def test_files_beside_recipes_and_mirrors_may_not_link_out(catalogue: Path, load: object) -> None:
    assert callable(load)
    target = link(catalogue, "it.yaml")
    with pytest.raises(RecipeError) as caught:
        load(catalogue / "it.yaml")
    named(caught.value.problems[0], "it.yaml", target)


def test_an_image_to_upgrade_from_may_not_lie_elsewhere(catalogue: Path, tmp_path: Path) -> None:
    target = link(catalogue, "old", "../../etc")
    for name, said in (("old", f"'old' leads to '{target}'"), ("../../etc", "lies outside")):
        with pytest.raises(RecipeError, match=said):
            _older(SmokePlan(None, (), upgrade_from=name), catalogue, Store.open(tmp_path / "store"))


def test_a_key_that_is_a_fifo_or_without_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    for key in (tmp_path / "key", Path("/dev/zero")):
        platform = Platform("p", (PackageRepository("r", ("file:///x",), keys=(str(key),)),), ())
        with pytest.raises(RecipeError) as caught:
            load_keys(platform, "x86_64", variables={}, store=Store.open(tmp_path / "store"))
        assert caught.value.code == "key-unreadable"


def test_a_worker_is_given_nothing_that_links_out(catalogue: Path) -> None:
    (catalogue / "templates").mkdir()
    (catalogue / "templates" / "ok.j2").write_text("ok")
    (catalogue / "templates" / "link.j2").symlink_to("ok.j2")
    (catalogue / "templates" / "circle").symlink_to(".")
    (catalogue / "templates" / "etc").symlink_to("../../../etc")
    (catalogue / "templates" / "shadow").symlink_to(catalogue.parents[1] / "etc" / "shadow")
    os.mkfifo(catalogue / "templates" / "fifo")
    recipe = good(catalogue, "files: [{template: ok.j2, path: /etc/t}]\n")
    with tarfile.open(fileobj=BytesIO(pack_files(task_files(recipe))), mode="r:gz") as archive:
        names = {Path("/", one.name).relative_to(catalogue).as_posix(): one for one in archive}
        assert {name for name, one in names.items() if one.isfile()} == {
            "demo.yaml",
            "templates/ok.j2",
            "templates/link.j2",
        }
        assert all(SHADOW.encode() not in (archive.extractfile(one) or BytesIO()).read() for one in names.values())


def test_a_digest_is_not_taken_of_what_never_ends(tmp_path: Path) -> None:
    from pipeline.digest import digest_file

    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a file"):
            digest_file(path)
    (tmp_path / "file").write_text("x")
    assert digest_file(tmp_path / "file") == Digest.of(b"x")
