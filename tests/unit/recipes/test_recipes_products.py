"""The product recipes and platforms that stand in this repository."""

from __future__ import annotations

import ast

import pytest

from pipeline.errors import RecipeError
from pipeline.model.checks import CheckKind
from pipeline.model.limits.bandwidth import LIMIT as BANDWIDTH
from pipeline.model.limits.cpus import LIMIT as CPUS
from pipeline.model.limits.memory import LIMIT as MEMORY
from pipeline.model.limits.pids import LIMIT as PIDS
from pipeline.model.recipe import FileKind, Recipe
from pipeline.model.rpm_database import DatabaseFormat
from pipeline.process import run
from pipeline.recipes import platforms_schema, template_scope
from pipeline.render import Templates, evaluate_template
from pipeline.yaml_documents import load_yaml
from tests.support.patience import HUNG
from tests.support.schemas import jsonschema, validate_recipe
from tests.support.shipped_recipes import RECIPES, shipped_platforms, shipped_recipe

PRODUCTS = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.name != "repositories.yaml")


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_builds_on_a_platform_that_exists(name: str) -> None:
    recipe = shipped_recipe(name)
    platform = shipped_platforms().find(recipe.platform)
    assert recipe.name == name
    assert set(recipe.architectures) <= set(platform.architectures)


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_stands_on_the_common_base(name: str) -> None:
    base = shipped_recipe("base").layers[0]
    assert _lowest(shipped_recipe(name)).layers[0] == base


def _lowest(recipe: Recipe) -> Recipe:
    """What a recipe is built from in the end."""
    return _lowest(recipe.parent) if recipe.parent else recipe


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_proves_that_it_works_and_stops(name: str) -> None:
    smoke = shipped_recipe(name).smoke
    kinds = [check.kind for check in smoke.checks]
    assert smoke.ready is not None
    assert len(kinds) >= 4
    assert kinds[-1] is CheckKind.STOP
    assert None not in (smoke.limits[limit] for limit in (CPUS, MEMORY, PIDS, BANDWIDTH))


@pytest.mark.parametrize("name", [name for name in PRODUCTS if name != "base"])
def test_a_product_runs_as_a_user_of_its_own(name: str) -> None:
    recipe = _lowest(shipped_recipe(name))
    assert recipe.image.user in {user.name for user in recipe.users}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_template_of_a_product_is_rendered(name: str) -> None:
    recipe = shipped_recipe(name)
    templates = Templates(recipe.template_folders)
    for plan in recipe.files:
        if plan.kind is FileKind.DIRECTORY:
            continue
        assert plan.kind is FileKind.TEMPLATE
        text = templates.render(plan.origin, template_scope(recipe), place=plan.place).text
        if text.startswith("#!/bin/bash"):
            assert plan.mode == 0o755
            assert "\nset -euo pipefail\n" in text
            run(["bash", "-n"], stdin=text.encode(), timeout=HUNG)
        if plan.path.endswith(".py"):
            ast.parse(text, plan.path)
    for text in (*(text for _, text in recipe.image.labels), *recipe.image.environment):
        assert "{{" not in evaluate_template(text, template_scope(recipe), place=name)


@pytest.mark.parametrize(
    ("product", "template", "line"),
    [
        ("mysql", "my.cnf.j2", "sort_buffer_size = 1M"),
        ("mariadb", "mariadb.cnf.j2", "sort_buffer_size = 1M"),
        ("postgresql", "postgresql.conf.j2", "sort_buffer_size = '1M'"),
        ("redis", "redis.conf.j2", "sort_buffer_size 1M"),
        ("valkey", "valkey.conf.j2", "sort_buffer_size 1M"),
    ],
)
def test_settings_are_written_into_the_configuration(product: str, template: str, line: str) -> None:
    recipe = shipped_recipe(product)
    values = template_scope(recipe) | {"settings": {"sort_buffer_size": "1M"}}
    rendered = Templates(recipe.template_folders).render(template, values, place=product)
    assert line in rendered.text.splitlines()


def test_haproxy_hands_requests_on_to_the_servers_it_is_given_and_has_none_of_its_own_then() -> None:
    recipe = shipped_recipe("haproxy")
    values = template_scope(recipe) | {"servers": {"two": "192.0.2.2:80", "one": "192.0.2.1:80"}}
    text = Templates(recipe.template_folders).render("haproxy.cfg.j2", values, place="haproxy").text
    servers = [line.strip() for line in text.splitlines() if line.startswith("    server ")]
    assert servers == ["server one 192.0.2.1:80 check", "server two 192.0.2.2:80 check"]
    assert "welcome" not in text


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_schema_accepts_what_the_loader_accepts(name: str) -> None:
    validate_recipe(load_yaml(RECIPES / f"{name}.yaml").value)


def test_the_schema_of_platforms_accepts_ours() -> None:
    jsonschema.validate(load_yaml(RECIPES / "repositories.yaml").value, platforms_schema())


@pytest.mark.parametrize(
    "document",
    [
        {"nmae": "x"},
        {"name": 1},
        {"layers": [{"name": "a"}]},
        {"layers": [{"name": "a", "packages": ["b"], "without": ["doc"]}]},
        {"files": [{"path": "relative", "content": "x"}]},
        {"files": [{"path": "/a", "content": "x", "mode": 644}]},
        {"smoke": {"instances": 0}},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(document: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_recipe(document)


def test_real_platforms_are_there_and_old_ones_are_refused_by_name() -> None:
    platforms = shipped_platforms()
    assert {"local", "centos-stream-9", "centos-stream-10", "fedora-44", "mysql-8.4-el9"} <= set(platforms)
    assert "name rocky-8" in platforms.refused["el8"]
    assert platforms["rocky-8"].rpm_database.format is DatabaseFormat.BDB
    assert platforms["opensuse-leap-16"].rpm_database.format is DatabaseFormat.NDB
    for platform in platforms.values():
        for repository in platform.repositories:
            assert repository.keys


# --- by platform -------------------------------------------------------------------------------------------

CHOICES = (
    *("local", "rhel-8", "rocky-9", "centos-stream-10", "ubi-9", "fedora-44", "amazonlinux-2023", "azurelinux-3"),
    *("photon-5", "opensuse-leap-16", "opensuse-tumbleweed", "mysql-8.4-el9", "epel-10"),
)
"""A platform for each set of entries that shipped recipes can choose, and some of vendors."""


@pytest.mark.costly
@pytest.mark.parametrize("platform", CHOICES)
def test_a_product_chooses_for_each_platform_or_says_why_it_cannot(platform: str) -> None:
    platforms = shipped_platforms()
    for name in PRODUCTS:
        try:
            recipe = shipped_recipe(name, platform)
        except RecipeError as error:
            assert {problem.code for problem in error.problems} == {"recipe-refused"}, str(error)
            assert platform not in {"local", "rocky-9"}, "all is there"
            continue
        chosen = platforms.find(platform, add_ons=recipe.add_ons)
        assert len({one.id for one in chosen.repositories}) == len(chosen.repositories)
        assert all(layer.requests for layer in recipe.layers)


def test_a_product_has_the_vendors_packages_on_enterprise_linux() -> None:
    found = {}
    for name in ("mysql", "mariadb", "postgresql", "nginx"):
        recipe = shipped_recipe(name, "almalinux-10")
        found[name] = ([one.text for one in recipe.layers[-1].requests], *recipe.add_ons)
    assert found == {
        "mysql": (["mysql-community-server", "mysql-community-client"], "mysql-8.4"),
        "mariadb": (["MariaDB-server", "MariaDB-client"], "mariadb-11.8"),
        "postgresql": (["postgresql17-server", "postgresql17"], "postgresql-17"),
        "nginx": (["nginx"], "nginx"),
    }


def test_every_entry_is_named_after_a_platform_or_family_that_is_shipped() -> None:
    known = shipped_platforms().known_names
    for name in PRODUCTS:
        document = load_yaml(RECIPES / f"{name}.yaml").value
        assert isinstance(document, dict)
        assert set(document.get("platforms") or {}) <= known


def test_modules_and_add_ons_are_those_of_the_release() -> None:
    platforms = shipped_platforms()
    for platform, modules, link in (
        ("rocky-8", ("redis:6",), "epel-$release"),
        ("oraclelinux-9", (), "epel-$release"),
        ("centos-stream-10", None, "epel-${release}s"),
    ):
        if modules is not None:
            assert shipped_recipe("redis", platform).modules == modules
        (epel,) = (one for one in platforms.find(platform, add_ons=("epel",)).repositories if one.id == "epel")
        assert link in str(epel.metalink)
