"""What the package asks for admits what the tests run with, and nothing that it asks for is untested."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.source import trees

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = [Requirement(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]]
KERBEROS = [Requirement(line) for line in PROJECT["optional-dependencies"]["kerberos"]]


def pins() -> dict[str, Version]:
    """The exact versions of ci/requirements.txt."""
    lines = (ROOT / "ci/requirements.txt").read_text().splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(equals for _, equals, _ in pairs), "each line is NAME==VERSION"
    return {canonicalize_name(name): Version(version) for name, _, version in pairs}


@pytest.mark.parametrize("wanted", RANGES, ids=lambda one: one.name)
def test_each_range_has_the_pinned_version_and_an_end(wanted: Requirement) -> None:
    assert pins()[canonicalize_name(wanted.name)] in wanted.specifier
    assert {one.operator for one in wanted.specifier} == {">=", "<"}


def test_the_kerberos_extra_admits_what_its_test_fetches() -> None:
    text = (ROOT / "ci/kerberos").read_text()
    (pinned,) = [line for line in text.splitlines() if line.startswith("client=")]
    name, _, version = pinned.removeprefix('client="').split()[0].partition("==")
    (wanted,) = [one for one in KERBEROS if one.name == name]
    assert Version(version) in wanted.specifier


def test_every_library_that_the_code_imports_is_asked_for() -> None:
    asked = {canonicalize_name(one.name) for one in [*RANGES, *KERBEROS]} | {"gssapi"}
    # rpm comes from the system; pydantic asks for the very version of its core.
    ours = {"pipeline", "rpm", "pydantic_core", *sys.stdlib_module_names}
    names = {
        name.partition(".")[0]
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    } - ours
    brought = packages_distributions()
    unknown = {name for name in names if not asked & {canonicalize_name(one) for one in brought.get(name, [name])}}
    assert not unknown
