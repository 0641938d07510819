"""Accounts and failures of scriptlets of packages made here, held against rpm; test_real_recipes has real packages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import BuildError
from pipeline.launch import unpack_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.rpm_install import install_with_rpm
from tests.support.trees import merged

BASE = "setup, filesystem, glibc, bash, coreutils, shadow-utils"


def make(build_env: BuildEnvironment, recipes: Path, output: Path, packages: str, more: str = "") -> BuildResult:
    path = recipes / "scripted.yaml"
    path.write_text(
        f"name: scripted\nversion: '1'\nplatform: local\narchitectures: [x86_64]\n"
        f"layers: [{{name: base, packages: [{packages}], without: [docs, man]}}]\n{more}"
    )
    path.with_suffix(".lock").unlink(missing_ok=True)
    return build(BuildOptions(path, recipes / "repositories.yaml", smoke=False, output=output), build_env)


def line_of(layers: list[Path], table: str, name: str) -> str:
    text = next(file.read_text() for layer in reversed(layers) if (file := layer / table).exists())
    return next(line for line in text.splitlines() if line.startswith(f"{name}:"))


def test_an_account_that_pre_asks_for_is_as_rpm_makes_it(
    build_env: BuildEnvironment, recipes: Path, tmp_path: Path
) -> None:
    result = make(build_env, recipes, tmp_path / "output", f"{BASE}, hardcase-account")
    root = tmp_path / "root"
    root.mkdir()
    install_with_rpm(root, result, build_env)
    layers = unpack_layers(result.image, build_env.store, QUIET)
    for table in ("etc/passwd", "etc/group"):
        theirs = [line for line in (root / table).read_text().splitlines() if line.startswith("hardcase:")]
        assert [line_of(layers, table, "hardcase")] == theirs
    tree = merged(layers)
    owned = tree["var/lib/hardcase-account/owned"]
    assert (owned.uid, owned.gid) == (990, 990)
    assert result.locked.section.accounts == ()


@pytest.mark.parametrize(("which", "script"), [("post", "post"), ("pre", "pre")])
def test_a_failing_script_is_an_error_a_warning_or_waived_as_the_recipe_says(
    build_env: BuildEnvironment, recipes: Path, tmp_path: Path, which: str, script: str
) -> None:
    packages = f"{BASE}, hardcase-failing-{which}"
    waive = f"scriptlets: {{waive: [{{package: hardcase-failing-{which}, script: {script}, reason: a test}}]}}\n"
    waived = make(build_env, recipes, tmp_path, packages, waive)
    (failed,) = waived.failed_scriptlets
    assert (failed.script, failed.reason) == (script, "a test")
    report = json.loads((waived.report_folder / "report.json").read_text())
    assert report["failed_scriptlets"][0]["package"].startswith(f"hardcase-failing-{which}-")
    assert json.loads((waived.report_folder / "materials.json").read_text())["failed_scriptlets"]
    # The layer is remembered, and a recipe that waives nothing does not get it.
    with pytest.raises(BuildError) as caught:
        make(build_env, recipes, tmp_path, packages)
    assert caught.value.code == "scriptlet-failed" and "waive" in (caught.value.problems[0].hint or "")
    if which == "pre":
        with pytest.raises(BuildError, match="hardcase-failing-pre"):
            make(build_env, recipes, tmp_path, packages, "scriptlets: rpm\n")
        return
    lenient = make(build_env, recipes, tmp_path, packages, "scriptlets: rpm\n")
    assert lenient.failed_scriptlets[0].reason == "" and lenient.image.digest == waived.image.digest
