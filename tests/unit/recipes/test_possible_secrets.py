"""A recipe whose platform may hold a secret in plain text is not written into the store."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.beneath import ReadCache
from pipeline.recipes import PlatformTarget
from pipeline.recipes.possible_secrets import may_hold_secret
from pipeline.store import Store
from tests.support.recipe_documents import load_now

LOADING: Any = importlib.import_module("pipeline.recipes.document_loading")
SHIPPED = Path(__file__).parents[3] / "recipes"
CANARY = "cAnArY7"
RECIPE = 'name: top\nversion: "1"\nplatform: local\nlayers: [{name: base, packages: [sed]}]\n'
PLAIN = "keys: [key], baseurls: ['https://h.invalid/a']"


def _entries(folder: Path, monkeypatch: pytest.MonkeyPatch, definitions: str, **files: str) -> list[bytes]:
    """Load a recipe with these definitions; return all results of the store."""
    monkeypatch.setattr(LOADING, "START", -3600.0)
    for name in ("_recipes", "_platforms", "_included"):
        monkeypatch.setattr(LOADING, name, ReadCache(8))
    for name, text in {"top.yaml": RECIPE, "repositories.yaml": definitions, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    store = Store.open(folder / "store")
    target = PlatformTarget(folder / "repositories.yaml")
    load_now(folder / "top.yaml", target, store)
    return [path.read_bytes() for path in (store.root / "results").rglob("*") if path.is_file()]


def _definitions(repository: str, more: str = "") -> str:
    return f"platforms: {{local: {{{more} repositories: [{{id: own, {repository}}}]}}}}\n"


@pytest.mark.parametrize(
    "definitions",
    [
        _definitions(f"keys: [key], baseurls: ['https://u:{CANARY}@h.invalid/a']"),
        _definitions(f"keys: [key], baseurls: ['https://{CANARY}@h.invalid/a']"),
        _definitions(f"keys: [key], baseurls: ['https://h.invalid/a', 'https://h.invalid/b?token={CANARY}']"),
        _definitions(f"keys: [key], mirrorlist: 'https://u:{CANARY}@h.invalid/a'"),
        _definitions(f"keys: [key], mirrorlist: 'https://h.invalid/a?token={CANARY}'"),
        _definitions(f"keys: [key], metalink: 'https://h.invalid/a?sig={CANARY}'"),
        _definitions(f"keys: ['https://u:{CANARY}@h.invalid/k'], baseurls: ['https://h.invalid/a']"),
        _definitions(f"{PLAIN}, username: {CANARY}, password: {{environment: RELBUILD_SECRET_X}}"),
        _definitions(f"{PLAIN}, username: u, password: {{file: {CANARY}}}"),
        _definitions(f"{PLAIN}, proxy: 'http://p.invalid:1', proxy_username: {CANARY}, proxy_password: {{file: x}}"),
        _definitions("keys: [key], baseurls: ['https://$login@h.invalid/a']", f"variables: {{login: 'u:{CANARY}'}},"),
        _definitions("keys: [key], baseurls: ['https://$login/a']", f"variables: {{login: 'u:{CANARY}@h.invalid'}},"),
        _definitions(
            "keys: [key], baseurls: ['https://${login}/a']",
            f"variables: {{login: '${{RELBUILD_VAR_LOGIN:-u:{CANARY}@h.invalid}}'}},",
        ),
        _definitions(
            "keys: [key], mirrorlist: 'https://h.invalid/$query'", f"variables: {{query: 'a?token={CANARY}'}},"
        ),
        _definitions(f"{PLAIN}, proxy: 'http://$where'", f"variables: {{where: 'u:{CANARY}@p.invalid:1'}},"),
        f"platforms: {{local: {{repositories: [{{id: a, {PLAIN}}}], sources: [{{id: own, keys: [key], baseurls: "
        f"['https://u:{CANARY}@h.invalid/a']}}]}}}}\n",
        f"platforms: {{local: {{description: 'https://u:{CANARY}@h.invalid', repositories: [{{id: a, {PLAIN}}}]}}}}\n",
    ],
)
def test_no_result_holds_a_secret_of_the_definitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, definitions: str
) -> None:
    assert not _entries(tmp_path, monkeypatch, definitions)


@pytest.mark.parametrize(
    "text",
    [
        f"baseurl=https://u:{CANARY}@h.invalid/a\n",
        f"baseurl=https://h.invalid/a?token={CANARY}\n",
        f"mirrorlist=https://h.invalid/a?token={CANARY}\n",
        f"metalink=https://u:{CANARY}@h.invalid/a\n",
        f"baseurl=https://h.invalid/a\nusername={CANARY}\npassword={CANARY}\n",
        f"baseurl=https://h.invalid/a\nproxy=http://u:{CANARY}@p.invalid:1\n",
        f"baseurl=https://h.invalid/a\nproxy=http://p.invalid:1\nproxy_username={CANARY}\nproxy_password={CANARY}\n",
        "baseurl=https://$login/a\n",
    ],
)
def test_no_result_holds_a_secret_of_a_repo_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    definitions = "platforms: {local: {dnf-vars: [vars], repositories: [{file: x.repo}]}}\n"
    files = {"x.repo": f"[own]\nname=own\ngpgkey=file:///key\n{text}", "vars/login": f"u:{CANARY}@h.invalid"}
    (tmp_path / "vars").mkdir()
    found = _entries(tmp_path, monkeypatch, definitions, **files)
    assert not any(CANARY.encode() in entry for entry in found)


@pytest.mark.parametrize(
    "repository",
    [
        PLAIN,
        f"{PLAIN}, token: {{environment: RELBUILD_SECRET_X}}",
        f"{PLAIN}, netrc: true",
        f"{PLAIN}, proxy: 'http://p.invalid:3128'",
        f"{PLAIN}, sslclientcert: '/etc/pki/entitlement/*.pem'",
        "keys: [key], baseurls: ['https://h.invalid/$releasever/?arch=$basearch']",
    ],
)
def test_what_names_the_place_of_a_secret_alone_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str
) -> None:
    definitions = _definitions(repository, "variables: {release: '9'},")
    assert len(_entries(tmp_path, monkeypatch, definitions)) == 1


@pytest.mark.parametrize(
    "value",
    [
        f"values: {{where: 'https://u:{CANARY}@h.invalid/'}}",
        f"values: {{deep: {{list: [1, 'postgres://u:{CANARY}@h.invalid/']}}}}",
        f"files: [{{content: 'see https://h.invalid/?key={CANARY}', path: /etc/a}}]",
        f'values: {{key: "-----BEGIN PRIVATE KEY-----\\n{CANARY}"}}',
        f"image: {{environment: {{WHERE: 'https://u:{CANARY}@h.invalid/'}}}}",
    ],
)
def test_no_result_holds_what_is_seen_to_be_a_secret_of_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    files = {"top.yaml": f"{RECIPE}{value}\n"}
    assert not _entries(tmp_path, monkeypatch, _definitions(PLAIN), **files)


@pytest.mark.parametrize("recipe", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_secret_is_seen_in_what_is_shipped(recipe: Path) -> None:
    if recipe.name != "repositories.yaml":
        from pipeline.recipes import load_recipe

        assert not may_hold_secret(load_recipe(recipe))
