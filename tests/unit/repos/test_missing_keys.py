"""A key that cannot be read: what leads to its path, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.model.platform import PackageRepository, Platform
from pipeline.repos import load_keys, openpgp_keys
from pipeline.repos.variables import environment_behind
from pipeline.store import Store
from tests.support.openpgp import key_maker


@pytest.mark.parametrize(
    ("text", "variables", "names"),
    [
        ("$mirror/KEY", {"mirror": "${RELBUILD_MIRROR:-~/mirror}"}, ("RELBUILD_MIRROR",)),
        (
            "${mirror}/KEY-$other",
            {"mirror": "${RELBUILD_VAR_B}/${RELBUILD_VAR_A}", "other": "9"},
            ("RELBUILD_VAR_A", "RELBUILD_VAR_B"),
        ),
        ("/keys/KEY", {"mirror": "${RELBUILD_VAR_A}", "empty": "${RELBUILD_VAR_EMPTY:-}"}, ()),
        ("$mirror/KEY", {"mirror": "/keys", "other": "${RELBUILD_VAR_A:-/keys}"}, ()),
        ("/KEY-$releasever_major", {"release": "${RELBUILD_VAR_A}"}, ("RELBUILD_VAR_A",)),
        ("/KEY-$releasever", {"release": "${RELBUILD_VAR_A}", "releasever": "9"}, ()),
        ("/KEY-$basearch-$unknown", {"release": "${RELBUILD_VAR_A}"}, ()),
    ],
)
def test_a_path_depends_on_the_environment_that_its_variables_name(
    text: str, variables: dict[str, str], names: tuple[str, ...]
) -> None:
    assert environment_behind(text, Platform("p", (), variables=tuple(variables.items()))) == names


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("$mirror/key", "environment variable RELBUILD_MIRROR: set that"),
        ("/nowhere/key", "relative to repositories.yaml"),
    ],
)
def test_a_missing_key_is_told_with_the_variable_that_leads_to_it(store: Store, key: str, hint: str) -> None:
    variables = (("mirror", "${RELBUILD_MIRROR}"), ("empty", "${RELBUILD_VAR_EMPTY:-}"))
    platform = Platform("p", (PackageRepository("a", baseurls=("file:///a",), keys=(key,)),), variables=variables)
    with pytest.raises(RecipeError) as caught:
        load_keys(platform, "x86_64", variables={"RELBUILD_MIRROR": "/nowhere"}, store=store)
    assert hint in (caught.value.problems[0].hint or "")


def test_a_misspelled_key_is_suggested_the_name_beside_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "RPM-GPG-KEY-local").write_text("")
    (tmp_path / "repodata").mkdir()
    variables = (("mirror", "${RELBUILD_MIRROR}"),)
    repository = PackageRepository("a", baseurls=("file:///a",), keys=("$mirror/RPM-GPG-KEY-lokal",))
    platform = Platform("p", (repository,), variables=variables)
    with pytest.raises(RecipeError) as caught:
        load_keys(platform, "x86_64", variables={"RELBUILD_MIRROR": str(tmp_path)}, store=store)
    assert caught.value.problems[0].hint == "did you mean 'RPM-GPG-KEY-local', in the same folder?"


def test_what_leads_to_a_key_is_asked_only_where_one_fails(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def behind(text: str, _: Platform) -> tuple[str, ...]:
        asked.append(text)
        return ()

    monkeypatch.setattr(openpgp_keys, "environment_behind", behind)
    with key_maker(tmp_path / "maker") as made:
        (tmp_path / "key").write_bytes(made.public)
    repository = PackageRepository("a", baseurls=("file:///a",), keys=(f"{tmp_path}/key",))
    assert load_keys(Platform("p", (repository,)), "x86_64", variables={}, store=store) and not asked
    with pytest.raises(RecipeError):
        load_keys(Platform("p", (replace(repository, keys=("/no",)),)), "x86_64", variables={}, store=store)
    assert asked == ["/no"]
