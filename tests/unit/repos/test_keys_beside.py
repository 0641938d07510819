"""Keys that lie beside `repositories.yaml`: read there, sent to workers, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.model.platform import Platform, is_relative_key
from pipeline.recipes import load_platforms
from pipeline.repos import RepositoryKey, load_keys
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.store import Store
from tests.support.openpgp import KeyMaker, key_maker

DEFINITIONS = """\
platforms:
  vendor:
    architectures: [x86_64, aarch64]
    variables: {release: "9", place: "${RELBUILD_VAR_PLACE:-/nowhere}"}
    repositories:
      - {id: one, baseurls: ["file:///one"], keys: ["keys/KEY-$release-$basearch"]}
      - {file: it.repo, keys: [keys/KEY-9-x86_64]}
"""


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> KeyMaker:
    with key_maker(tmp_path_factory.mktemp("keys") / "vendor") as made:
        made.public  # noqa: B018
        return made


def platform(folder: Path, text: str = DEFINITIONS) -> Platform:
    (folder / "repositories.yaml").write_text(text)
    (folder / "it.repo").write_text("[two]\nbaseurl=file:///two\ngpgkey=file:///elsewhere\n")
    return load_platforms(folder / "repositories.yaml").find("vendor")


def keys_of(folder: Path, found: Platform) -> tuple[RepositoryKey, ...]:
    (folder / "store").mkdir(mode=0o700, exist_ok=True)
    return load_keys(found, "x86_64", variables={}, store=Store.open(folder / "store"))


def test_a_relative_key_is_read_beside_the_definitions(tmp_path: Path, maker: KeyMaker) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/KEY-9-x86_64").write_bytes(maker.public)
    found = keys_of(tmp_path, platform(tmp_path))
    assert [(key.repository, key.fingerprint) for key in found] == [("one", maker.primary), ("two", maker.primary)]


def test_workers_and_the_next_night_are_told_of_the_files(tmp_path: Path) -> None:
    found = platform(tmp_path)
    wanted = {tmp_path / "keys" / f"KEY-9-{arch}" for arch in ("x86_64", "aarch64")}
    assert wanted <= set(found.files) & set(found.watched)


def test_a_definition_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here, there = (platform(tmp_path / name) for name in ("here", "there"))
    assert here == there
    assert here.repositories[0].keys == ("keys/KEY-$release-$basearch",)
    own = platform_variables(there, "aarch64", {})
    assert expand_repository(there.repositories[0], own, {}).keys == (str(tmp_path / "there/keys/KEY-9-aarch64"),)


@pytest.mark.parametrize("key", ["../outside", "keys/../../outside", "keys/link", "keys/missing"])
def test_no_relative_key_is_read_elsewhere(tmp_path: Path, maker: KeyMaker, key: str) -> None:
    inner = tmp_path / "recipes"
    (inner / "keys").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(maker.public)
    (inner / "keys/link").symlink_to(tmp_path / "outside")
    (inner / "keys/KEY-9-x86_64").write_bytes(maker.public)
    text = DEFINITIONS.replace("keys/KEY-$release-$basearch", key)
    with pytest.raises(RecipeError) as caught:
        keys_of(tmp_path, platform(inner, text))
    assert (caught.value.code, caught.value.problems[0].place) == ("key-unreadable", "repository one")
    assert "relative to repositories.yaml" in (caught.value.problems[0].hint or "")


@pytest.mark.parametrize(
    ("place", "relative"),
    [("keys/A", True), ("A", True), ("/A", False), ("~/A", False), ("$mirror/A", False), ("${mirror}/A", False)]
    + [(f"{scheme}://x/A", False) for scheme in ("http", "https", "file")],
)
def test_what_counts_as_relative(place: str, relative: bool) -> None:
    assert is_relative_key(place) is relative
