"""docs/platforms.md lists the shipped platforms. RELBUILD_REGENERATE=1 writes its table anew."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.model.platform import Platform, is_relative_key
from pipeline.recipes import load_platforms
from pipeline.repos.variables import expand_repository, platform_variables
from pipeline.urls import parse_url
from tests.support.lookalikes.platforms import platform_names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/platforms.md"

REAL = {
    "fedora-43": "glibc and 18 others",
    "rocky-8": "httpd and 28 others",
}
"""Platforms of which real packages were built (tests/system/abreast/test_real_recipes.py)."""


def table() -> str:
    platforms = load_platforms(ROOT / "recipes/repositories.yaml")
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


def test_the_table_of_platforms_is_not_stale() -> None:
    before, found, after = re.split(r"(?<=<!-- platforms -->\n)(.*)(?=<!-- end -->)", PAGE.read_text(), flags=re.DOTALL)
    if os.environ.get("RELBUILD_REGENERATE"):
        found = table()
        PAGE.write_text(before + found + after)
    assert found == table(), "run this test with RELBUILD_REGENERATE=1"


def test_centos_stream_10_has_the_epel_that_is_built_for_it() -> None:
    """`epel-10` becomes the one for RHEL's minor releases (mock's templates `epel-10.tpl` and `epel-10s.tpl`)."""
    platform = load_platforms(ROOT / "recipes/repositories.yaml")["epel-10"]
    epel = expand_repository(platform.repositories[-1], platform_variables(platform, "x86_64", {}), {})
    assert epel.metalink == "https://mirrors.fedoraproject.org/metalink?repo=epel-10s&arch=x86_64"
