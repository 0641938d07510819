"""The files that a task reads, taken to another machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.model.absolute_path import absolute
from pipeline.nightly.catalogue import CatalogueEntry, load_catalogue, recipe_files
from pipeline.nightly.executors import task_inputs
from pipeline.nightly.executors.executor_protocol import WorkerSettings
from pipeline.nightly.executors.task_inputs import pack_files, task_files, unpack_files
from pipeline.recipes import load_recipe
from tests.support.recipe_folder import GOOD, write

RECIPES = Path(__file__).parents[4] / "recipes"


@pytest.fixture(scope="module")
def catalogue() -> dict[str, CatalogueEntry]:
    """The shipped products by name."""
    return {entry.name: entry for entry in load_catalogue([RECIPES]).entries}


def test_files_stand_below_their_absolute_paths(tmp_path: Path) -> None:
    given, there = tmp_path / "given", tmp_path / "there"
    (given / "templates" / "deep").mkdir(parents=True)
    (given / "templates" / "deep" / "one").write_text("one")
    (given / "tool").write_text("#!/bin/sh\n")
    (given / "tool").chmod(0o755)
    (given / "link").symlink_to("tool")
    unpack_files(
        pack_files([given / "templates", given / "sub" / ".." / "link", given / "link", given / "missing"]), there
    )
    place = WorkerSettings(absolute(tmp_path), absolute(tmp_path), "worker", absolute(there))

    def local_path(path: Path) -> Path:
        return place.local_path(absolute(path))

    assert local_path(given / "templates" / "deep" / "one").read_text() == "one"
    assert local_path(given / "link").read_text() == "#!/bin/sh\n" and not local_path(given / "link").is_symlink()
    assert os.access(local_path(given / "link"), os.X_OK)
    assert not local_path(given / "missing").exists()


@pytest.mark.parametrize("name", sorted(one.stem for one in RECIPES.glob("*.yaml") if one.stem != "repositories"))
def test_a_recipe_can_be_loaded_from_what_was_taken_along(
    name: str, catalogue: dict[str, CatalogueEntry], tmp_path: Path
) -> None:
    entry = catalogue[name]
    recipe = entry.recipe
    assert recipe is not None
    unpack_files(pack_files(task_files(recipe)), tmp_path)
    here = absolute(tmp_path)
    there = load_recipe(WorkerSettings(here, here, "worker", here).local_path(absolute(entry.path)))
    assert there.name == recipe.name and there.layers == recipe.layers and there.smoke == recipe.smoke
    assert [folder.is_dir() for folder in there.template_folders] == [f.is_dir() for f in recipe.template_folders]


def test_archives_beside_a_recipe_are_taken_along(tmp_path: Path) -> None:
    (tmp_path / "app.tar").write_bytes(b"x")
    path = write(
        tmp_path,
        GOOD
        + "files:\n"
        + f"  - {{archive: app.tar, path: /opt/a, sha256: {'a' * 64}}}\n"
        + f"  - {{archive: 'https://vendor/b.tar', path: /opt/b, sha256: {'b' * 64}}}\n",
    )
    recipe = load_recipe(path)
    assert tmp_path / "app.tar" in task_files(recipe)
    assert recipe_files(recipe) == {path, tmp_path / "app.tar", path.with_suffix(".lock")}


def test_more_than_the_scheduler_should_carry_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(os.urandom(200_000))
    monkeypatch.setattr(task_inputs, "PACKED_LIMIT", 100_000)
    with pytest.raises(UsageError) as refused:
        pack_files([tmp_path / "large"])
    assert refused.value.code == "files-too-large" and "large" in str(refused.value)


def test_the_limit_counts_what_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").write_bytes(b"x")
    size = len(pack_files([tmp_path / "small"]))
    monkeypatch.setattr(task_inputs, "PACKED_LIMIT", size)
    assert len(pack_files([tmp_path / "small"])) == size
    monkeypatch.setattr(task_inputs, "PACKED_LIMIT", size - 1)
    with pytest.raises(UsageError, match=f"up to '{tmp_path / 'small'}'"):
        pack_files([tmp_path / "small"])
