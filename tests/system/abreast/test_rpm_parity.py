"""What rpm itself says of the image, and what rpm itself would have installed."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build import BuildResult, build
from pipeline.launch import unpack_layers
from pipeline.prepare import BuildEnvironment, BuildOptions
from pipeline.progress import QUIET
from tests.support.explained_differences import EXPLANATIONS
from tests.support.rpm_install import canonical, compare_with_rpm, install_with_rpm, rpm
from tests.support.trees import merged
from tests.system.conftest import PRODUCTS

DATABASE = "/usr/lib/sysimage/rpm"


@pytest.fixture(scope="module")
def whole(
    built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A product's whole root file system, as umoci unpacks it."""
    made: dict[str, Path] = {}

    def get(product: str) -> Path:
        if product not in made:
            result = built(product)
            bundle = tmp_path_factory.mktemp("whole") / product
            subprocess.run(
                ["umoci", "unpack", "--image", f"{result.layout}:{result.image.reference}", bundle], check=True
            )
            made[product] = bundle / "rootfs"
        return made[product]

    return get


@pytest.mark.parametrize("product", PRODUCTS)
def test_rpm_lists_exactly_the_lock(
    product: str, built: Callable[[str], BuildResult], whole: Callable[[str], Path]
) -> None:
    listed = rpm(whole(product), "-qa", "--qf", "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\n")
    locked = {str(chosen.package.nevra) for chosen in built(product).locked.section.resolution.chosen}
    assert {line.replace("-0:", "-") for line in listed.split()} == locked


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_line_of_rpm_verify_is_a_change_that_the_report_explains(
    product: str, built: Callable[[str], BuildResult], whole: Callable[[str], Path]
) -> None:
    report = json.loads((built(product).report_folder / "report.json").read_text())
    changed = {change["path"]: change["cause"] for change in report["changed_package_files"]}
    lines = rpm(whole(product), "-Va", "--nodeps", check=False).splitlines()
    unexplained = []
    for line in lines:
        found = re.match(r"(missing|\S{9})\s+(?:[cdglr] )?(/.*?)(?: \(.*\))?$", line)
        assert found, line
        if canonical(whole(product), found[2]) not in changed:
            unexplained.append(line)
    assert not unexplained, unexplained
    assert all(changed.values())


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_database_stands_where_scanners_look(product: str, whole: Callable[[str], Path]) -> None:
    """Trivy, Syft and Grype open usr/lib/sysimage/rpm/rpmdb.sqlite or var/lib/rpm/rpmdb.sqlite, and read its
    table `Packages` without rpm."""
    database = whole(product) / DATABASE.lstrip("/") / "rpmdb.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        (count,) = connection.execute("select count(*) from Packages").fetchone()
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    assert count == len(rpm(whole(product), "-qa").split())


def test_the_images_own_rpm_reads_the_database(recipes: Path, build_env: BuildEnvironment, tmp_path: Path) -> None:
    (recipes / "with-rpm.yaml").write_text(
        "name: with-rpm\nversion: '1'\ninclude: [base.yaml]\nplatform: local\narchitectures: [x86_64]\n"
        "layers: [{name: product, packages: [rpm], without: [docs, man]}]\n"
        "smoke:\n  ready: {log: waiting, within: 60s}\n"
        "  checks: [{name: lists packages, command: [rpm, -qa], expect: {stdout: 'glibc-[0-9]'}}]\n"
    )
    result = build(BuildOptions(recipes / "with-rpm.yaml", recipes / "repositories.yaml", output=tmp_path), build_env)
    assert result.report is not None and result.report.passed, result.report
    subprocess.run(
        ["umoci", "unpack", "--image", f"{result.layout}:{result.image.reference}", tmp_path / "bundle"],
        check=True,
    )
    listed = subprocess.run(
        ["chroot", tmp_path / "bundle" / "rootfs", "rpm", "-qa", "--qf", "%{NEVRA}\n"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert sorted(listed) == sorted(str(c.package.nevra) for c in result.locked.section.resolution.chosen)


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_whole_image_is_what_rpm_installs_but_for_what_is_explained(
    product: str, built: Callable[[str], BuildResult], build_env: BuildEnvironment, tmp_path: Path
) -> None:
    result = built(product)
    root = tmp_path / "root"
    root.mkdir()
    install_with_rpm(root, result, build_env)
    image = merged(unpack_layers(result.image, build_env.store, QUIET))
    found, left = compare_with_rpm(root, result, image)
    assert not left, "\n".join(map(str, left))
    assert any(difference.field == "mtime" for difference in found)


def test_the_explanations_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "differences.md").read_text()
    for explanation in EXPLANATIONS:
        assert f"**{explanation.title}**" in text, f"docs/differences.md lacks '{explanation.title}'"
