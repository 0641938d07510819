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
    DATABASE_FILES,
    DATABASE_FOLDERS,
    DATABASE_LABEL,
    FORMAT_LABEL,
    DatabaseFormat,
    RpmDatabase,
    database_paths,
    labelled,
)
from pipeline.oci import make_image
from pipeline.packages import bdb_writer, ndb_writer
from pipeline.recipes import load_recipe
from tests.support.source import nodes, trees
from tests.support.tested_images import config
from tests.support.tiny_image import fake_layer
from tests.unit.packages.test_packages_installed import APP, database

ROOT = Path(__file__).parents[3]
DATABASE_FILE = DATABASE_FILES[DatabaseFormat.SQLITE]
OF_APP = {
    DatabaseFormat.SQLITE: database(APP),
    DatabaseFormat.BDB: bdb_writer.write_bdb_packages({1: APP}),
    DatabaseFormat.NDB: ndb_writer.write_ndb_packages({1: APP}),
}


def image(labels: dict[str, str]) -> Image:
    return make_image("tiny", "1", replace(config(), labels=tuple(sorted(labels.items()))), [fake_layer("base")])


def put(lower: Path, path: str, data: bytes) -> None:
    (lower / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (lower / path.lstrip("/")).write_bytes(data)


@pytest.mark.parametrize("form", DatabaseFormat)
@pytest.mark.parametrize("folder", [*DATABASE_FOLDERS, "/opt/vendor/rpm", "/usr/share/rpmdb"])
def test_packages_are_found_where_the_platform_has_them(folder: str, form: DatabaseFormat, tmp_path: Path) -> None:
    put(tmp_path / "state", f"{folder}/{DATABASE_FILES[form]}", OF_APP[form])
    contents = read_contents(image(labelled({}, RpmDatabase(folder, form))), [tmp_path / "state"])
    assert contents.packages == (PackageLicense("app-7:1.0-2.x86_64", ""),)
    assert contents.database == f"{folder}/{DATABASE_FILES[form]}"


@pytest.mark.parametrize("form", DatabaseFormat)
@pytest.mark.parametrize("folder", DATABASE_FOLDERS)
def test_packages_of_a_foreign_image_are_found_in_each_format(
    folder: str, form: DatabaseFormat, tmp_path: Path
) -> None:
    put(tmp_path / "only", f"{folder}/{DATABASE_FILES[form]}", OF_APP[form])
    assert read_contents(image({}), [tmp_path / "only"]).packages == (PackageLicense("app-7:1.0-2.x86_64", ""),)


def test_a_format_that_is_not_known_is_no_database() -> None:
    assert database_paths({DATABASE_LABEL: "/var/lib/rpm", FORMAT_LABEL: "lmdb"}) == ()


def test_an_image_without_a_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    contents = read_contents(image({}), [tmp_path / "state"])
    assert (contents.packages, contents.database) == ((), "")


def test_only_relbuild_says_where_the_database_is() -> None:
    recipe = load_recipe(ROOT / "recipes" / "nginx.yaml")
    stated = ((DATABASE_LABEL, "/decoy"), (FORMAT_LABEL, "ndb"), ("team", "web"))
    sly = replace(recipe, image=replace(recipe.image, labels=stated))

    def labels(database: RpmDatabase) -> dict[str, str]:
        made = image_config(sly, "1", lambda text: text, arch="x86_64", created=1, rpm_database=database)
        return dict(made.labels)

    usual, elsewhere = labels(RpmDatabase("/var/lib/rpm")), labels(RpmDatabase("/opt/vendor/rpm"))
    other = labels(RpmDatabase("/var/lib/rpm", DatabaseFormat.BDB))
    assert not {DATABASE_LABEL, FORMAT_LABEL} & usual.keys() and usual["team"] == "web"
    assert elsewhere[DATABASE_LABEL] == "/opt/vendor/rpm" and FORMAT_LABEL not in elsewhere
    assert database_paths(elsewhere)[0] == f"/opt/vendor/rpm/{DATABASE_FILE}"
    assert database_paths(other)[0] == "/var/lib/rpm/Packages"
    assert set(database_paths({})) == set(database_paths(other)) < set(database_paths(elsewhere))
    assert database_paths({})[:3] == tuple(f"{folder}/{DATABASE_FILE}" for folder in DATABASE_FOLDERS)
    assert Platform("p", ()).rpm_database == RpmDatabase(DATABASE_FOLDERS[0], DatabaseFormat.SQLITE)


def test_there_is_no_second_list_of_places() -> None:
    found = []
    for path, tree in trees().items():
        for node in nodes(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            files = (DATABASE_FILE, *(f"/{name}" for name in DATABASE_FILES.values()))
            if text.strip("/") in {folder.strip("/") for folder in DATABASE_FOLDERS} or text.endswith(files):
                found.append(str(path.relative_to(ROOT)))
    assert set(found) == {"pipeline/model/rpm_database.py"}
