"""Paths that a recipe names in the image: what is made there, and what is removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import BuildError, Problem, RecipeError
from pipeline.layers.installed_packages import final_file_states, matching_paths
from pipeline.layers.placed_files import place_files, remove_paths
from pipeline.layers.recipe_files import ImageFile
from pipeline.model.recipe import FileKind
from pipeline.model.tree import Entry, EntryKind, Tree
from pipeline.sandbox import RootFs
from pipeline.store import Store
from pipeline.trees import STATE_NORMAL, STATE_NOT_INSTALLED

ROOT_ID = os.geteuid()
TREE = Tree.of(
    {
        "bin": Entry("bin", EntryKind.SYMLINK, link="usr/bin"),
        "usr": Entry("usr", EntryKind.DIRECTORY),
        "usr/bin": Entry("usr/bin", EntryKind.DIRECTORY),
        "usr/bin/a": Entry("usr/bin/a", EntryKind.FILE),
    }
)
LINK = ImageFile("/srv/x", FileKind.SYMLINK, None, "y", None, str(ROOT_ID), str(ROOT_ID), "web.yaml:7: files[0]")
FILE = replace(LINK, kind=FileKind.CONTENT, content=b"x", mode=0o644)
FOLDER = replace(LINK, kind=FileKind.DIRECTORY, mode=0o755)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[RootFs]:
    """An image with a file and a folder in /srv, and links as distributions have them."""
    for folder in ("srv/folder", "usr/bin", "run", "var"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "srv/file").write_text("x")
    (tmp_path / "usr/bin/a").write_text("x")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "var/run").symlink_to("../run")
    handle = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield RootFs(handle, 0)
    os.close(handle)


def put(root: RootFs, store: Store, *files: ImageFile) -> dict[str, ImageFile]:
    return place_files(files, root, {}, 5, store)


@pytest.mark.parametrize(
    ("file", "message", "hint"),
    [
        (replace(FILE, path="/srv/file/x"), "'/srv/file'", "in place of a directory"),
        (replace(FILE, path="/srv/folder"), "'/srv/folder' in the image: a directory is there", "choose another path"),
        (replace(LINK, path="/srv/folder"), "'/srv/folder' in the image: a directory is there", "choose another path"),
        (replace(LINK, link="a" * 5000), "'/srv/x' in the image: File name too long", ""),
        (replace(FOLDER, path="/srv/file"), "'/srv/file' in the image: Not a directory", "in place of a directory"),
    ],
)
def test_what_cannot_be_made_is_told_where_the_recipe_asks_for_it(
    file: ImageFile, message: str, hint: str, root: RootFs, store: Store
) -> None:
    with pytest.raises(BuildError) as caught:
        put(root, store, file)
    (problem,) = caught.value.problems
    assert (problem.code, problem.place) == ("image-path-failed", "web.yaml:7: files[0]")
    assert message in problem.message and hint in (problem.hint or "")


def test_an_owner_that_the_image_lacks_is_told_where_the_recipe_asks_for_it(root: RootFs, store: Store) -> None:
    with pytest.raises(BuildError) as caught:
        put(root, store, replace(FILE, owner="web"))
    assert (caught.value.code, caught.value.problems[0].place) == ("owner-unknown", "web.yaml:7: files[0]")


@pytest.mark.parametrize("file", [FILE, LINK, FOLDER])
def test_what_a_link_leads_to_scratch_space_is_refused(file: ImageFile, root: RootFs, store: Store) -> None:
    with pytest.raises(RecipeError) as caught:
        put(root, store, replace(file, path="/var/run/web"))
    assert (caught.value.code, caught.value.problems[0].place) == ("path-unsafe", "web.yaml:7: files[0]")
    assert "'/var/run/web' is '/run/web'" in caught.value.problems[0].message


def test_a_file_at_the_place_of_another_is_refused_over_links_too(root: RootFs, store: Store) -> None:
    second = replace(FILE, path="/usr/bin/x", place="web.yaml:8: files[1]")
    with pytest.raises(RecipeError) as caught:
        put(root, store, replace(FILE, path="/bin/x"), second)
    assert (caught.value.code, caught.value.problems[0].place) == ("file-duplicate", "web.yaml:8: files[1]")
    assert "'/usr/bin/x' is '/bin/x' too" in caught.value.problems[0].message
    assert "created at web.yaml:7" in caught.value.problems[0].message


def test_what_is_made_is_not_removed_over_a_link(root: RootFs, store: Store, tmp_path: Path) -> None:
    made = put(root, store, replace(FILE, path="/usr/bin/x"))
    for path in ("/bin/x", "/usr/bin"):
        with pytest.raises(RecipeError) as caught:
            remove_paths([(path, "web.yaml:9: remove[0]")], made, root, TREE)
        assert (caught.value.code, caught.value.problems[0].place) == ("remove-contradiction", "web.yaml:9: remove[0]")
    assert (tmp_path / "usr/bin/x").read_text() == "x"


def test_what_is_removed_and_not_there_is_told_where_the_recipe_asks_for_it(root: RootFs) -> None:
    asked = [("/srv/file", "web.yaml:9: remove[0]"), ("/srv/none", "web.yaml:10: remove[1]")]
    with pytest.raises(BuildError) as caught:
        remove_paths(asked, {}, root, TREE)
    assert caught.value.problems == (
        Problem(
            "remove-missing",
            "'/srv/none' matches nothing in the image",
            "web.yaml:10: remove[1]",
            "correct it or delete it under 'remove:'",
        ),
    )


def test_what_is_removed_over_a_link_is_not_installed(root: RootFs, tmp_path: Path) -> None:
    assert matching_paths("/bin/a", TREE) == ["usr/bin/a"]
    assert matching_paths("/bin/b", TREE) == []
    assert matching_paths("/bin", TREE) == ["bin"]
    remove_paths([("/bin/a", None)], {}, root, TREE)
    assert not (tmp_path / "usr/bin/a").exists() and (tmp_path / "bin").is_symlink()
    states = final_file_states({"a": (STATE_NORMAL, STATE_NORMAL)}, {"a": ("usr/bin/a", "usr/bin")}, ["/bin/a"], TREE)
    assert states == {"a": (STATE_NOT_INSTALLED, STATE_NORMAL)}
