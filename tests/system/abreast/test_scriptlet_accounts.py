"""Accounts and failures of scriptlets, of packages made here and of real ones, held against rpm."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import BuildError
from pipeline.launch import unpack_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from pipeline.store import Store
from tests.support.real_packages import real_packages
from tests.support.trees import merged
from tests.system.abreast.test_rpm_parity import install_with_rpm

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


# --- real packages -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes over real packages, copied so that no lock is written beside them."""
    folder = tmp_path_factory.mktemp("real") / "recipes"
    shutil.copytree(real_packages() / "recipes", folder, ignore=shutil.ignore_patterns("*.lock"))
    return folder


@pytest.fixture(scope="module")
def real_env(tmp_path_factory: pytest.TempPathFactory) -> BuildEnvironment:
    environment: Mapping[str, str] = {"HOME": str(Path.home()), "RELBUILD_REAL": str(real_packages())}
    store = Store.open(tmp_path_factory.mktemp("real-store") / "store")
    return BuildEnvironment(store=store, progress=QUIET, environment=environment, clock=time.time)


def build_real(name: str, real: Path, env: BuildEnvironment, output: Path) -> BuildResult:
    return build(BuildOptions(real / f"{name}.yaml", real / "repositories.yaml", output=output), env)


def test_apache_of_rocky_is_48_and_owns_what_the_package_says(
    real: Path, real_env: BuildEnvironment, tmp_path: Path
) -> None:
    result = build_real("rocky-httpd", real, real_env, tmp_path)
    assert result.report is not None and result.report.passed, result.report.problems
    layers = unpack_layers(result.image, real_env.store, QUIET)
    assert line_of(layers, "etc/passwd", "apache") == "apache:x:48:48:Apache:/usr/share/httpd:/sbin/nologin"
    assert line_of(layers, "etc/group", "apache") == "apache:x:48:"
    tree = merged(layers)
    theirs = sorted(
        (Path(file.path).name, file.user == "apache", file.group == "apache")
        for header in result.locked.headers
        for file in header.files
        if "apache" in (file.user, file.group)
    )
    owned = [(Path(path).name, entry.uid == 48, entry.gid == 48) for path, entry in tree.items()]
    assert len(theirs) == 7 and sorted(one for one in owned if any(one[1:])) == theirs


def test_a_trigger_that_wants_a_supervisor_ends_the_build_or_is_waived(
    real: Path, real_env: BuildEnvironment, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="transfiletriggerin") as caught:
        build_real("tipidee-plain", real, real_env, tmp_path)
    hint = caught.value.problems[0].hint or ""
    said = re.search(r"`(scriptlets: \{waive.*?\]\})`", hint)
    assert said, hint
    plain = real / "tipidee-plain.yaml"
    text = plain.read_text()
    plain.write_text(text + said[1].replace("…", "no supervisor listens in a build") + "\n")
    waived = build_real("tipidee-plain", real, real_env, tmp_path)
    assert waived.report is not None and waived.report.passed, waived.report.problems
    assert {one.reason for one in waived.failed_scriptlets} == {"no supervisor listens in a build"}
    plain.write_text(text + "scriptlets: rpm\n")
    lenient = build_real("tipidee-plain", real, real_env, tmp_path)
    assert lenient.image.digest == waived.image.digest and lenient.failed_scriptlets
    plain.write_text(text)
