"""Requests that have no solution are refused with what is wrong, where, and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import VerificationError
from tests.support.resolve_world import World, refusal
from tests.support.rpmmd import Rpm


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_missing_package_is_told_with_its_line_and_a_likely_name(world: World) -> None:
    world.add("r", Rpm("mysql-server"), Rpm("nginx"))
    error = refusal(world, ["mysql-sever", "nginx", "qqq"], ["nginx>=1"])
    assert [problem.place for problem in error.problems] == [
        "r.yaml:0.mysql-sever",
        "r.yaml:0.qqq",
        "r.yaml:1.nginx>=1",
    ]
    assert {problem.code for problem in error.problems} == {"package-missing"}
    assert "mysql-server" in str(error.problems[0].hint)
    assert "spaces" in str(error.problems[2].hint)


def test_a_conflict_names_both_packages_and_both_lines(world: World) -> None:
    world.add("r", Rpm("a", requires=("x",)), Rpm("x", conflicts=("b",)), Rpm("b"))
    error = refusal(world, ["a"], ["b"])
    assert error.code == "packages-conflict"
    assert "x-1-1.noarch conflicts with b, which is b-1-1.noarch" in str(error)
    assert "r.yaml:0.a" in str(error) and "r.yaml:1.b" in str(error)


def test_a_missing_requirement_is_told_with_the_chain_to_it(world: World) -> None:
    world.add("r", Rpm("a", requires=("b",)), Rpm("b", requires=("libz.so.1",)))
    error = refusal(world, ["a"])
    assert error.code == "requirement-missing"
    assert error.problems[0].place == "r.yaml:0.a"
    assert "b-1-1.noarch requires libz.so.1, which nothing provides" in str(error)
    assert "a-1-1.noarch requires b" in str(error)
    assert "assume-installed: ['libz.so.1']" in str(error)


def test_a_package_without_a_sha256_is_refused_by_name(world: World) -> None:
    world.add("r", Rpm("a", checksum_type="sha1"))
    with pytest.raises(VerificationError, match=r"has no sha256 of a-1-1\.noarch"):
        world.solve(["a"])


def test_every_malformed_rich_dependency_is_told_with_its_line(world: World) -> None:
    world.add("r", Rpm("a"), Rpm("b"))
    error = refusal(world, ["a", "(a and b"], ["(a nor b)"])
    assert [(problem.code, problem.place) for problem in error.problems] == [
        ("dependency-malformed", "r.yaml:0.(a and b"),
        ("dependency-malformed", "r.yaml:1.(a nor b)"),
    ]
    assert "brackets closed" in (error.problems[0].hint or "")
