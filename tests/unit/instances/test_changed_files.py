"""Configuration of one instance: rendered with other values, edited, kept with owner and mode of the image's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import RelbuildError, UsageError
from pipeline.instances import InstanceFolder, keep_files, render_changes
from pipeline.layers import ImageFiles
from pipeline.model.recipe import Recipe
from pipeline.model.tree import Entry, EntryKind
from pipeline.recipes import changed_values, load_recipe

PACKAGES = {"app": {"version": "1.2"}}


class FakeFiles:
    """An image's files by path, all with the same owner and mode."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def real_path(self, path: str) -> str | None:
        return path.replace("//", "/").replace("/link/", "/etc/")

    def read(self, path: str, limit: int) -> tuple[Entry, bytes]:
        if path not in self.files:
            raise UsageError("image-file-missing", path)
        return Entry(path[1:], EntryKind.FILE, 0o640, os.getuid(), os.getgid()), self.files[path]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "app.conf.j2").write_text("size {{ size }}\nversion {{ packages['app'].version }}\n")
    (tmp_path / "other.j2").write_text("port {{ port }}\n")
    (tmp_path / "app.yaml").write_text(
        "name: app\nversion: '1'\nplatform: local\nlayers: [{name: base, packages: [bash]}]\n"
        "files:\n  - {template: app.conf.j2, path: /etc/app.conf}\n  - {template: other.j2, path: /etc/other}\n"
        "values: {size: 128M, port: 80}\nimage: {entrypoint: [/app], environment: {SIZE: '{{ size }}', A: b}}\n"
    )
    return load_recipe(tmp_path / "app.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> InstanceFolder:
    (tmp_path / "app-1").mkdir()
    return InstanceFolder(tmp_path / "app-1")


def image(**files: bytes) -> ImageFiles:
    there = {"/etc/app.conf": b"size 128M\nversion 1.2\n", "/etc/other": b"port 80\n"}
    return cast(ImageFiles, FakeFiles({**there, **{f"/etc/{name}": data for name, data in files.items()}}))


def edit_by(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def never(path: Path) -> None:
    raise AssertionError(f"nobody edits {path}")


def test_only_what_comes_out_otherwise_is_changed(recipe: Recipe) -> None:
    changed = render_changes(recipe, changed_values(recipe, ["size=64M"]), PACKAGES, image())
    assert changed.files == {"/etc/app.conf": b"size 64M\nversion 1.2\n"}
    assert changed.environment == {"SIZE": "64M"}
    same = render_changes(recipe, changed_values(recipe, ["size=128M"]), PACKAGES, image())
    assert (same.files, same.environment) == ({}, {})


def test_a_recipe_that_changed_since_the_image_was_built_is_refused(recipe: Recipe) -> None:
    """Else more would change than the one value that was set."""
    with pytest.raises(RelbuildError) as raised:
        render_changes(recipe, changed_values(recipe, ["port=81"]), PACKAGES, image(other=b"listen 80\n"))
    assert raised.value.code == "recipe-changed" and "/etc/other" in str(raised.value)


def test_a_changed_file_is_kept_with_the_mode_of_the_images(folder: InstanceFolder) -> None:
    mounts, different = keep_files(folder, {"/etc/app.conf": b"new"}, (), image(), never)
    own = folder.files / "etc" / "app.conf"
    assert own.read_bytes() == b"new" and own.stat().st_mode & 0o7777 == 0o640
    assert [(mount.source, mount.path, mount.read_only) for mount in mounts] == [(str(own), "/etc/app.conf", True)]
    assert different == ()


def test_a_file_is_edited_after_it_was_rendered(folder: InstanceFolder) -> None:
    edit = edit_by(lambda data: data + b"edited")
    mounts, different = keep_files(folder, {"/etc/app.conf": b"new "}, ["/etc/app.conf", "/etc/other"], image(), edit)
    assert (folder.files / "etc" / "app.conf").read_bytes() == b"new edited"
    assert (folder.files / "etc" / "other").read_bytes() == b"port 80\nedited"
    assert len(mounts) == 2 and different == ("/etc/app.conf", "/etc/other")


def test_a_file_is_one_under_all_its_paths(folder: InstanceFolder) -> None:
    edit = edit_by(lambda data: data + b"edited")
    edited = ["/etc//app.conf", "/link/app.conf"]
    mounts, different = keep_files(folder, {"/etc/app.conf": b"new "}, edited, image(), edit)
    assert (folder.files / "etc" / "app.conf").read_bytes() == b"new edited"
    assert [mount.path for mount in mounts] == ["/etc/app.conf"] and different == ("/etc/app.conf",)


def test_a_file_that_was_left_as_it_is_is_not_kept(folder: InstanceFolder) -> None:
    assert keep_files(folder, {}, ["/etc/other"], image(), edit_by(bytes)) == ((), ())
    assert not folder.files.exists()


def test_an_editor_that_replaces_the_file_loses_neither_content_nor_mode(folder: InstanceFolder) -> None:
    def replace_file(path: Path) -> None:
        draft = path.with_suffix(".swp")
        draft.write_bytes(b"other")
        draft.chmod(0o600)
        draft.replace(path)

    keep_files(folder, {}, ["/etc/other"], image(), replace_file)
    own = folder.files / "etc" / "other"
    assert own.read_bytes() == b"other" and own.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("path", ["/etc/missing", "/../../etc/passwd"])
def test_a_path_that_leads_nowhere_writes_nothing(folder: InstanceFolder, path: str) -> None:
    files = image()
    cast(FakeFiles, files).files["/../../etc/passwd"] = b""  # As an image resolves it, below its root.
    with pytest.raises(RelbuildError) as raised:
        keep_files(folder, {}, [path], files, never)
    assert raised.value.code == "image-file-missing"
    assert not folder.files.exists()


def test_the_recipes_own_values_stay(recipe: Recipe) -> None:
    assert replace(recipe, values=()) == replace(changed_values(recipe, ["size=1"]), values=())
