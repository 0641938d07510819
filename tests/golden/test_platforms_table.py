"""docs/platforms.md lists the shipped platforms. RELBUILD_REGENERATE=1 writes its table anew."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.model.platform import Platform, is_relative_key
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.urls import parse_url
from pipeline.yaml_documents import load_yaml
from tests.support.lookalikes.platforms import platform_names
from tests.support.shipped_recipes import shipped_platforms, shipped_recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/platforms.md"

REAL = {
    "fedora-43": "glibc and 18 others",
    "rocky-8": "httpd and 28 others",
}
"""Platforms of which real packages were built (tests/system/abreast/test_real_recipes.py)."""


EXAMPLES = {
    "el": "rocky-9",
    "el8": "rocky-8",
    "el9": "rocky-9",
    "el10": "rocky-10",
    "ubi": "ubi-9",
    "fedora": "fedora-44",
    "amazonlinux": "amazonlinux-2023",
    "azurelinux": "azurelinux-3",
    "photon": "photon-5",
    "opensuse": "opensuse-leap-16",
}
"""A platform of each family."""

TRIED = {
    ("mysql", "el"): "look-alike of `rocky-9`",
    ("mysql", "fedora"): "look-alike of `fedora-44`",
    ("mariadb", "opensuse"): "look-alike of `opensuse-tumbleweed`",
}
"""What tests/system/abreast/test_lookalikes.py builds; with the development mirror, CI does."""


def table() -> str:
    platforms = shipped_platforms()
    lines = ["| platform | what | rpm's database | found by | keys | tried on |", "|---|---|---|---|---|---|"]
    shipped = platform_names(platforms)
    lines += [_line(platform) for name, platform in platforms.items() if name in shipped]
    return "\n".join(lines) + "\n"


def _line(platform: Platform) -> str:
    database = platform.rpm_database
    found = ", ".join(dict.fromkeys(_places(platform)))
    keys = "in the tree" if all(map(is_relative_key, _keys(platform))) else "one downloaded"
    tried = "look-alike" + (f", real packages ({REAL[platform.name]})" if platform.name in REAL else "")
    columns = (f"`{platform.name}`", platform.description, f"{database.format}, {database.folder}", found, keys, tried)
    return f"| {' | '.join(columns)} |"


def _keys(platform: Platform) -> list[str]:
    return [key for one in platform.repositories for key in one.keys]


def _places(platform: Platform) -> Iterator[str]:
    for one in platform.repositories:
        kind = "metalink" if one.metalink else "mirrorlist" if one.mirrorlist else "address"
        url = parse_url(one.metalink or one.mirrorlist or one.baseurls[0])
        assert url is not None
        yield f"{kind} at {url.host}" + (" (signed)" if one.signed_metadata else "")


def products_table() -> str:
    """What each shipped recipe asks for under each of its entries."""
    lines = ["| product | on | packages | add-on | tried on |", "|---|---|---|---|---|"]
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        document = load_yaml(path).value
        assert isinstance(document, dict)
        for entry, said in (document.get("platforms") or {}).items():
            if "layers" in document and path.stem != "base":
                refused = (said or {}).get("refused")
                columns = (f"refused: {refused}", "", "") if refused else _choice(path, entry)
                lines.append(f"| `{path.stem}` | `{entry}` | {' | '.join(columns)} |")
    return "\n".join(lines) + "\n"


def _choice(path: Path, entry: str) -> tuple[str, str, str]:
    platform = EXAMPLES.get(entry, entry)
    recipe = shipped_recipe(path.stem, platform)
    names = ", ".join(f"`{request.text}`" for request in recipe.layers[-1].requests)
    tried = "the development mirror" if entry == "local" else TRIED.get((path.stem, entry), "nobody")
    return names, ", ".join(f"`{one}`" for one in recipe.add_ons), tried


@pytest.mark.parametrize("name", ["platforms", "products"])
def test_a_table_is_not_stale(name: str) -> None:
    made = {"platforms": table, "products": products_table}[name]()
    pattern = rf"(?<=<!-- {name} -->\n)(.*?)(?=<!-- end -->)"
    before, found, after = re.split(pattern, PAGE.read_text(), maxsplit=1, flags=re.DOTALL)
    if os.environ.get("RELBUILD_REGENERATE"):
        found = made
        PAGE.write_text(before + found + after)
    assert found == made, "run this test with RELBUILD_REGENERATE=1"


def test_centos_stream_10_has_the_epel_that_is_built_for_it() -> None:
    """`epel-10` becomes the one for RHEL's minor releases (mock's templates `epel-10.tpl` and `epel-10s.tpl`)."""
    platform = shipped_platforms()["epel-10"]
    epel = expand_repository(platform.repositories[-1], platform_variables(platform, "x86_64", {}), {})
    assert epel.metalink == "https://mirrors.fedoraproject.org/metalink?repo=epel-10s&arch=x86_64"
