"""What rpm itself says of the image, and what rpm itself would have installed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build import Built, Workshop
from pipeline.launch import unpacked
from pipeline.progress import QUIET
from tests.system.conftest import PRODUCTS
from tests.system.explained import EXPLANATIONS, explained
from tests.system.trees import differences, merged, read_tree

DATABASE = "/usr/lib/sysimage/rpm"


def rpm(root: Path, *argv: str, check: bool = True) -> str:
    done = subprocess.run(
        ["rpm", "--root", str(root), "--dbpath", DATABASE, *argv], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(
    built: Callable[[str], Built], workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
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
    product: str, built: Callable[[str], Built], whole: Callable[[str], Path]
) -> None:
    listed = rpm(whole(product), "-qa", "--qf", "%{NAME}-%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}.%{ARCH}\n")
    locked = {str(chosen.package.nevra) for chosen in built(product).locked.section.resolution.chosen}
    assert {line.replace("-0:", "-") for line in listed.split()} == locked


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_line_of_rpm_verify_is_a_change_that_the_report_explains(
    product: str, built: Callable[[str], Built], whole: Callable[[str], Path]
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


def canonical(root: Path, path: str) -> str:
    """Where a header's path leads through the usr-merge links of an image."""
    first, _, rest = path.lstrip("/").partition("/")
    link = root / first
    return f"/{link.readlink()}/{rest}" if link.is_symlink() else path


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_scanner_finds_the_database_where_the_images_own_rpm_reads_it(
    product: str, whole: Callable[[str], Path]
) -> None:
    root = whole(product)
    own = subprocess.run(
        ["chroot", root, "/bin/sh", "-c", "command -v rpm"], capture_output=True, text=True, check=False
    )
    assert (root / DATABASE.lstrip("/") / "rpmdb.sqlite").stat().st_size > 0
    assert (root / "var/lib/rpm").is_symlink() and (root / "var/lib/rpm/").resolve().name == "rpm"
    assert own.returncode in (0, 1, 127)


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_whole_image_is_what_rpm_installs_but_for_what_is_explained(
    product: str, built: Callable[[str], Built], workshop: Workshop, tmp_path: Path
) -> None:
    result = built(product)
    root = tmp_path / "root"
    root.mkdir()
    section = result.locked.section
    packages = {str(chosen.package.nevra): chosen.package.checksum for chosen in section.resolution.chosen}
    files = []
    (tmp_path / "rpms").mkdir()
    for nevra, checksum in packages.items():
        link = tmp_path / "rpms" / f"{nevra.replace(':', '_')}.rpm"
        link.symlink_to(workshop.store.blob(checksum))
        files.append(str(link))
    install_with_rpm(root, files, result)
    theirs = read_tree(root)
    mine = merged(unpacked(result.image, workshop.store, QUIET))
    lines = differences(mine, theirs, ("relbuild", "rpm"))
    changed = {f"/{change.path}" for change in result.changes}
    recipe = {plan.path for plan in result.locked.recipe.files}
    left = [line for line in lines if not explained(line, changed=changed, recipe=recipe)]
    assert left == []


def install_with_rpm(root: Path, files: list[str], result: Built) -> None:
    """rpm with its scriptlets, into an empty root, with the options that correspond to the recipe's."""
    docs = [] if any(plan.docs for plan in result.locked.recipe.layers) else ["--excludedocs"]
    done = subprocess.run(
        [
            "rpm", "--root", str(root), "--dbpath", DATABASE, "--define", "_pkgverify_level none", "--nodeps",
            "--install", *docs, *files,
        ],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_explanations_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "differences.md").read_text()
    for explanation in EXPLANATIONS:
        assert f"**{explanation.title}**" in text, f"docs/differences.md lacks '{explanation.title}'"
