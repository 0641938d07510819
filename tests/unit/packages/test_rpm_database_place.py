"""One place says where rpm's database stands in an image, and all that read packages find it there."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.layers import read_contents
from pipeline.model.configuration import image_config
from pipeline.model.evidence import PackageLicense
from pipeline.model.image import Image
from pipeline.model.platform import Platform
from pipeline.model.rpm_database import (
    DATABASE_FILE,
    DATABASE_FOLDERS,
    DATABASE_LABEL,
    database_paths,
    labelled,
)
from pipeline.oci import make_image
from pipeline.recipes import load_recipe
from tests.support.source import trees
from tests.support.tested_images import config
from tests.support.tiny_image import fake_layer
from tests.unit.packages.test_packages_installed import APP, database

ROOT = Path(__file__).parents[3]


def image(labels: dict[str, str]) -> Image:
    return make_image("tiny", "1", replace(config(), labels=tuple(sorted(labels.items()))), [fake_layer("base")])


def put(lower: Path, path: str, data: bytes) -> None:
    (lower / path.lstrip("/")).parent.mkdir(parents=True)
    (lower / path.lstrip("/")).write_bytes(data)


@pytest.mark.parametrize("folder", [*DATABASE_FOLDERS, "/opt/vendor/rpm", "/usr/share/rpmdb"])
def test_packages_are_found_where_the_platform_has_them(folder: str, tmp_path: Path) -> None:
    put(tmp_path / "state", f"{folder}/{DATABASE_FILE}", database(APP))
    contents = read_contents(image(labelled({}, folder)), [tmp_path / "state"])
    assert contents.packages == (PackageLicense("app-7:1.0-2.x86_64", ""),)
    assert contents.database == f"{folder}/{DATABASE_FILE}"


def test_a_database_where_a_distribution_has_it_is_none_where_the_platform_has_another(tmp_path: Path) -> None:
    put(tmp_path / "state", f"/opt/vendor/rpm/{DATABASE_FILE}", database(APP))
    put(tmp_path / "product", f"{DATABASE_FOLDERS[0]}/{DATABASE_FILE}", database())
    lowers = [tmp_path / "product", tmp_path / "state"]
    assert read_contents(image(labelled({}, "/opt/vendor/rpm")), lowers).packages
    assert read_contents(image({}), lowers).packages == ()


def test_an_image_without_a_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    contents = read_contents(image({}), [tmp_path / "state"])
    assert (contents.packages, contents.database) == ((), "")


def test_only_relbuild_says_where_the_database_is() -> None:
    recipe = load_recipe(ROOT / "recipes" / "nginx.yaml")
    sly = replace(recipe, image=replace(recipe.image, labels=((DATABASE_LABEL, "/decoy"), ("team", "web"))))
    labels = {}
    for folder in ("/var/lib/rpm", "/opt/vendor/rpm"):
        made = image_config(sly, "1", lambda text: text, arch="x86_64", created=1, rpm_database=folder)
        labels[folder] = dict(made.labels)
    assert DATABASE_LABEL not in labels["/var/lib/rpm"] and labels["/var/lib/rpm"]["team"] == "web"
    assert labels["/opt/vendor/rpm"][DATABASE_LABEL] == "/opt/vendor/rpm"
    assert database_paths(labels["/opt/vendor/rpm"]) == (f"/opt/vendor/rpm/{DATABASE_FILE}",)
    assert database_paths({}) == tuple(f"{folder}/{DATABASE_FILE}" for folder in DATABASE_FOLDERS)
    assert Platform("p", ()).rpm_database == DATABASE_FOLDERS[0]


def test_there_is_no_second_list_of_places() -> None:
    found = []
    for path, tree in trees().items():
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if text.strip("/") in {folder.strip("/") for folder in DATABASE_FOLDERS} or text.endswith(DATABASE_FILE):
                found.append(str(path.relative_to(ROOT)))
    assert set(found) == {"pipeline/model/rpm_database.py"}
