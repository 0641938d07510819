"""The product recipes, end to end: built, launched, asked, and the same again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.build import BuildResult, build
from pipeline.prepare import BuildEnvironment, BuildOptions
from tests.system.conftest import MORE_PRODUCTS, PRODUCTS, ROOT

pytestmark = pytest.mark.long

CATALOGUE = (*PRODUCTS, *MORE_PRODUCTS)


OTHERS = {
    "base": "is included by the others",
    "repositories": "names platforms",
    "relbuild": "wants a package that ci/own-rpm makes of the checkout, with libraries from the network",
}
"""Files beside the recipes of products, and what they are."""


def test_every_recipe_is_among_the_products() -> None:
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")} - OTHERS.keys()
    assert recipes == set(CATALOGUE)


@pytest.mark.parametrize("product", CATALOGUE)
def test_the_product_answers_under_its_limits(product: str, built: Callable[[str], BuildResult]) -> None:
    result = built(product)
    report = result.report
    assert report is not None
    told = [f"{i.name} {c.name}: {c.detail}" for i in report.instances for c in i.checks if not c.passed]
    assert report.passed, (report.failure, told, [i.log[-2000:] for i in report.instances])
    assert report.image == result.image.digest
    for instance in report.instances:
        readings = {reading.name: reading for reading in instance.limits}
        for name in ("cpus", "memory", "pids"):
            assert readings[name].enforced and readings[name].read == readings[name].asked, readings[name]
        assert instance.peak_memory and instance.cpu_time
        assert instance.exit_code == 0


@pytest.mark.parametrize("product", CATALOGUE)
def test_the_report_holds_the_answers(product: str, built: Callable[[str], BuildResult]) -> None:
    folder = built(product).report_folder
    value = json.loads((folder / "report.json").read_text())
    assert value["image"]["digest"] == str(built(product).image.digest)
    assert value["smoke"]["passed"] is True
    suite = ElementTree.parse(folder / "junit.xml").getroot()
    cases = suite.findall(".//testcase")
    assert len(cases) >= 2 and not suite.findall(".//failure")
    report = built(product).report
    assert report is not None
    for instance in report.instances:
        assert (folder / f"{instance.name}.log").exists()


def test_the_base_layer_is_the_same_in_all_products(built: Callable[[str], BuildResult]) -> None:
    bases = {product: built(product).image.layers[0] for product in CATALOGUE}
    assert len({layer.blob.digest for layer in bases.values()}) == 1, bases
    assert len({layer.diff_id for layer in bases.values()}) == 1


@pytest.mark.parametrize("product", CATALOGUE)
def test_again_nothing_is_made_anew(
    product: str, built: Callable[[str], BuildResult], recipes: Path, build_env: BuildEnvironment
) -> None:
    first = built(product)
    order = BuildOptions(recipes / f"{product}.yaml", recipes / "repositories.yaml", output=first.layout.parent)
    again = build(order, build_env)
    assert again.image.digest == first.image.digest
    assert set(again.reused) == {layer.name for layer in again.image.layers}
    assert not again.locked.wrote
    assert again.verdict_reused


@pytest.mark.parametrize("product", ["nginx", "mysql"])
def test_elsewhere_with_everything_else_different_the_digest_is_the_same(
    product: str, built: Callable[[str], BuildResult], mirror: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "some where" / "ünusual"
    shutil.copytree(ROOT / "recipes", elsewhere / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(ROOT / "templates", elsewhere / "templates")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "RELBUILD_MIRROR": str(mirror),
        "TZ": "Pacific/Chatham",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "4711",
        "SOURCE_DATE_EPOCH": "1",
    }
    program = f"umask 077; exec '{sys.executable}' -m pipeline build {product} --json --no-smoke --progress none"
    done = subprocess.run(["sh", "-c", program], cwd=elsewhere, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    (result,) = json.loads(done.stdout)["built"]
    assert result["digest"] == str(built(product).image.digest)
