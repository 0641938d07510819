"""Recipes that are built from another recipe's image, with real packages: what rpm itself makes of them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.errors import BuildError
from pipeline.launch import unpack_layers
from pipeline.oci import validate_layout
from pipeline.prepare import BuildEnvironment
from pipeline.progress import QUIET
from tests.support.derived_images import (
    NEVRA,
    Family,
    lines,
    unpack,
)
from tests.support.rpm_install import canonical, compare_with_rpm, install_with_rpm, rpm
from tests.support.trees import differences, read_tree

BASE = "layers: [{name: base, packages: [setup, filesystem, glibc, bash, coreutils, shadow-utils%s]}]\n"
PLATFORM = "platform: local\narchitectures: [x86_64]\n"


@pytest.fixture(scope="module")
def real(recipes: Path, build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """The product recipes and those that tests write, beside one another."""
    folder = tmp_path_factory.mktemp("family")
    shutil.copytree(recipes, folder / "recipes", ignore=shutil.ignore_patterns("*.lock"))
    shutil.copytree(recipes.parent / "templates", folder / "templates")
    return Family(folder / "recipes", build_env)


@pytest.fixture(scope="module")
def twins(real: Family) -> tuple[BuildResult, BuildResult]:
    """nginx with its base included, and nginx from the image of its base, in a folder beside; both tested."""
    text = re.sub(r"(?m)^(include|platform|architectures): .*\n", "", (real.folder / "nginx.yaml").read_text())
    beside = real.folder.parent / "from"
    beside.mkdir()
    (beside / "nginx.yaml").write_text(f"from: ../recipes/base\n{text}")
    order = replace(real.write("other", ""), smoke=True)
    included = build(replace(order, recipe=real.folder / "nginx.yaml"), real.build_env)
    return included, build(replace(order, recipe=beside / "nginx.yaml", output=beside / "output"), real.build_env)


def test_a_product_from_its_base_passes_the_tests_that_it_passes_with_its_base_included(
    twins: tuple[BuildResult, BuildResult],
) -> None:
    for built in twins:
        assert built.report is not None and built.report.passed, built.report
    assert validate_layout(twins[1].layout) == ()


def test_the_parents_layers_come_first_byte_for_byte_and_the_childs_package_layer_is_the_shared_one(
    real: Family, twins: tuple[BuildResult, BuildResult]
) -> None:
    included, child = twins
    base = build(replace(real.write("other", ""), recipe=real.folder / "base.yaml"), real.build_env)
    blobs = [layer.blob.digest for layer in child.image.layers]
    assert blobs[:2] == [layer.blob.digest for layer in base.image.layers]
    assert blobs[2] == included.image.layers[1].blob.digest
    assert [layer.name for layer in child.image.layers] == ["base/base", "base/state", "product", "state"]


def test_the_two_images_differ_in_nothing_but_what_two_transactions_explain(
    real: Family, twins: tuple[BuildResult, BuildResult]
) -> None:
    """What the parent's scripts wrote has the parent's build time, and the child's state layer its own; accounts stand
    in the order in which they came; the RPM database has two times of installation."""
    included, child = twins
    found = differences(real.tree(child), real.tree(included), ("from", "include"))
    accounts = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
    database = "usr/lib/sysimage/rpm/rpmdb.sqlite"
    scripted = set(read_tree(unpack_layers(child.image, real.build_env.store, QUIET)[1]))
    left = [
        str(one)
        for one in found
        if not (one.field == "mtime" and (one.kind == "d" or one.path in scripted))
        and not (one.field == "content" and one.path in (*accounts, database))
    ]
    assert not left, "\n".join(left)
    mine, theirs = (sorted(lines(real, built, "etc/passwd")) for built in (child, included))
    assert mine == theirs


def test_rpm_lists_all_packages_and_verifies_them_but_for_what_the_report_explains(
    twins: tuple[BuildResult, BuildResult], tmp_path: Path
) -> None:
    included, child = (unpack(built, tmp_path) for built in twins)
    assert sorted(rpm(child, "-qa", "--qf", NEVRA).split()) == sorted(rpm(included, "-qa", "--qf", NEVRA).split())
    report = json.loads((twins[1].report_folder / "report.json").read_text())
    causes = {change["path"]: change["cause"] for change in report["changed_package_files"]}
    for line in rpm(child, "-Va", "--nodeps", check=False).splitlines():
        path = line[9:].split()[-1]
        assert canonical(child, path) in causes, line


def test_what_the_child_does_not_say_is_as_in_the_parent(twins: tuple[BuildResult, BuildResult]) -> None:
    included, child = (built.image.config for built in twins)
    assert (child.environment, child.entrypoint, child.stop_signal) == (
        included.environment,
        included.entrypoint,
        included.stop_signal,
    )
    manifest = json.loads(twins[1].image.manifest_bytes)
    assert twins[1].locked.parent is not None
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == str(twins[1].locked.parent.digest)


SCRIPTS = "hardcase-scriptlets"
FILES = "hardcase-lua, hardcase-identical, hardcase-hardlinks, hardcase-config, hardcase-account"


@pytest.mark.parametrize(("below", "above"), [(SCRIPTS, FILES), (FILES, SCRIPTS)])
def test_two_transactions_of_rpm_make_the_same(
    below: str, above: str, real: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts with their arguments and input, triggers of the parent's packages that the child sets off and of the
    child's that the parent's files set off, and the whole tree; rpm installs the parent's packages, then the child's,
    into one root."""
    monkeypatch.setattr("pipeline.layers.state_layer.LOG_FOLDER", "no/logs/are/emptied")
    number = len(below)
    parent = real.build(f"below-{number}", PLATFORM + BASE % f", {below}")
    child = real.build(f"above-{number}", f"from: below-{number}\nlayers: [{{name: more, packages: [{above}]}}]\n")
    root = tmp_path / "root"
    root.mkdir()
    install_with_rpm(root, parent, real.build_env)
    install_with_rpm(root, child, real.build_env)
    theirs = (root / "var/log/hardcase-scriptlets.log").read_text().splitlines()
    assert lines(real, child, "var/log/hardcase-scriptlets.log") == theirs
    assert any(line.startswith("transfiletriggerin ") for line in theirs)
    _, left = compare_with_rpm(root, child, real.tree(child))
    assert not left, "\n".join(map(str, left))


def test_a_conflict_with_a_file_of_the_parent_is_refused(real: Family) -> None:
    real.write("conflict-a", PLATFORM + BASE % ", hardcase-fileconflict-a")
    child = real.write("conflict-b", "from: conflict-a\nlayers: [{name: more, packages: [hardcase-fileconflict-b]}]\n")
    with pytest.raises(BuildError) as caught:
        build(child, real.build_env)
    assert caught.value.code == "file-conflict"
    assert "hardcase-fileconflict-a-1.0-1.local1.noarch of the parent image" in str(caught.value)
    assert "rebuild the parent" in (caught.value.problems[0].hint or "")
