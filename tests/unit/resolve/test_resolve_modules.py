"""Modular repositories: default streams, named streams, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ResolutionError
from tests.support.rpmmd import Rpm
from tests.unit.resolve.test_resolve import World


def stream(name: str, stream: str, *packages: str, version: int = 1, context: str = "c0", requires: str = "") -> str:
    rpms = "".join(f"\n        - {package}" for package in packages)
    return f"""---
document: modulemd
version: 2
data:
  name: {name}
  stream: "{stream}"
  version: {version}
  context: {context}
  arch: x86_64
  dependencies:
    - requires:
        platform: [el9]
{requires}
  artifacts:
    rpms:{rpms}
...
"""


def default(name: str, stream: str) -> str:
    return f"""---
document: modulemd-defaults
version: 1
data:
  module: {name}
  stream: "{stream}"
  profiles:
    "{stream}": [common]
...
"""


OLD = stream("nginx", "1.20", "nginx-0:1.20-1.noarch", "nginx-0:1.20-1.src")
NEW = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", "nginx-extra-0:1.24-1.noarch")
PACKAGES = (
    Rpm("nginx", "1.20-1"),
    Rpm("nginx", "1.24-1"),
    Rpm("nginx-extra", "1.24-1"),
    Rpm("nginx", "9-1"),
    Rpm("other"),
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_default_stream_takes_precedence_over_other_streams_and_over_newer_packages(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW + default("nginx", "1.20"))
    assert world.names(["nginx", "other"]) == ["nginx-1.20-1.noarch", "other-1-1.noarch"]
    with pytest.raises(ResolutionError, match="excluded"):
        world.names(["nginx-extra"])


def test_a_stream_that_the_recipe_names_replaces_the_default(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW + default("nginx", "1.20"))
    assert world.names(["nginx", "nginx-extra"], modules=("nginx:1.24",)) == [
        "nginx-1.24-1.noarch",
        "nginx-extra-1.24-1.noarch",
    ]


def test_without_a_default_the_packages_outside_of_modules_are_chosen(world: World) -> None:
    world.add("r", *PACKAGES, modules=OLD + NEW)
    assert world.names(["nginx"]) == ["nginx-9-1.noarch"]


def test_modules_reach_over_repositories(world: World) -> None:
    world.add("base", Rpm("nginx", "9-1")).add("modular", *PACKAGES[:3], modules=OLD + default("nginx", "1.20"))
    assert world.names(["nginx"]) == ["nginx-1.20-1.noarch"]


def test_a_stream_turns_on_what_it_requires(world: World) -> None:
    perl = stream("perl", "5.32", "perl-0:5.32-1.noarch")
    newer = stream("perl", "5.40", "perl-0:5.40-1.noarch")
    needs = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", requires="        perl: ['5.32']")
    rpms = (Rpm("perl", "5.32-1"), Rpm("perl", "5.40-1"), Rpm("nginx", "1.24-1", requires=("perl",)))
    world.add("r", *rpms, modules=perl + newer + needs)
    assert world.names(["nginx"], modules=("nginx:1.24",)) == ["nginx-1.24-1.noarch", "perl-5.32-1.noarch"]
    with pytest.raises(ResolutionError, match="requires streams that are not enabled") as caught:
        world.names(["nginx"], modules=("nginx:1.24", "perl:5.40"))
    assert caught.value.code == "module-refused"


def test_the_newest_build_of_a_stream_counts(world: World) -> None:
    older = stream("nginx", "1.24", "nginx-0:1.20-1.noarch", version=1)
    newer = stream("nginx", "1.24", "nginx-0:1.24-1.noarch", version=2)
    world.add("r", *PACKAGES, modules=newer + older + default("nginx", "1.24"))
    assert world.names(["nginx"]) == ["nginx-1.24-1.noarch"]


@pytest.mark.parametrize(
    ("modules", "asked", "message"),
    [
        (OLD + NEW, ("nginx:1.99",), "module stream not found: 'nginx:1.99'"),
        (OLD + NEW, ("nginx",), "module stream not found: 'nginx'"),
        ("", ("nginx:1.24",), "module stream not found"),
        (OLD + NEW, ("nginx:1.20", "nginx:1.24"), "listed with two streams"),
        (OLD + OLD.replace("c0", "c1"), ("nginx:1.20",), "several matching contexts"),
        (stream("nginx", "1.20", requires="        perl: []"), ("nginx:1.20",), "several or none fit"),
        ("---\ndocument: [\n", (), "cannot be read"),
    ],
)
def test_what_cannot_be_decided_is_refused_by_name(
    world: World, modules: str, asked: tuple[str, ...], message: str
) -> None:
    world.add("r", *PACKAGES, modules=modules)
    with pytest.raises(ResolutionError) as caught:
        world.names(["other"], modules=asked)
    assert caught.value.code == "module-refused"
    assert message in str(caught.value)
